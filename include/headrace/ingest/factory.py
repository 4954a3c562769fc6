"""Creates the sink and its clients from the settings."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial

import structlog
from confluent_kafka import KafkaError

from headrace.errors import AccessDeniedError
from headrace.ingest.batch import OpenBatches
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.commits import Commits
from headrace.ingest.dead_letters import DeadLetters
from headrace.ingest.health import Health, serve_health
from headrace.ingest.metrics import SinkMetrics
from headrace.ingest.sink import Sink
from headrace.ingest.writes import Writes
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile, load_profile
from headrace.settings import Settings
from headrace.storage.influx import Influx, influx_address
from headrace.storage.influx_readings import InfluxReadingStore, Patience
from headrace.storage.kafka import FatalErrors, Kafka, error_of
from headrace.storage.kafka_errors import consumer_acl

__all__ = ["make_codec", "run_sink"]

_log = structlog.get_logger(__name__)

_INFLUX_SECONDS = timedelta(seconds=10)
#: Kafka answers a fetch when it has this much data, or after this time.
_FETCH_BYTES, _FETCH_WAIT_MS = 64 * 1024, 100


def make_codec(settings: Settings, profile: Profile) -> ReadingCodec:
    """Create the codec from the settings and the profile."""
    return ReadingCodec(
        profile,
        max_payload_bytes=settings.max_payload_bytes,
        max_age=settings.raw_retention,
        max_ahead=settings.max_time_ahead,
    )


def run_sink(settings: Settings, stop: threading.Event) -> None:
    """Run a sink until `stop` is set. Raises the errors of `run_bridge`."""
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    metrics = SinkMetrics()
    health = Health("sink", ["kafka", "influxdb", "dead_letters"])
    influx = Influx(
        influx_address(settings, "sink"),
        timeout=_INFLUX_SECONDS,
        connections=settings.sink_writes_in_flight,
    )
    commits = Commits(profile.topics.raw)

    def complain(error: KafkaError) -> None:
        # librdkafka handles other errors, but a refused login stays refused.
        acl = consumer_acl(error, profile.topics.raw, profile.sink_group)
        problem = error_of(error, acl)
        if isinstance(problem, AccessDeniedError):
            health.problem("kafka", str(problem))

    fatal = FatalErrors(complain)
    consumer = kafka.consumer(
        profile.sink_group,
        error_cb=fatal,
        on_commit=commits.report,
        partition_assignment_strategy="cooperative-sticky",
        session_timeout_ms=10_000,
        heartbeat_interval_ms=2_000,
        queued_max_messages_kbytes=settings.sink_buffer_bytes // 1024,
        # Fetch as soon as there is room again; by default librdkafka waits a second.
        fetch_queue_backoff_ms=10,
        # Without a minimum, a steady fleet would cause one fetch for every few readings.
        fetch_min_bytes=_FETCH_BYTES,
        fetch_wait_max_ms=_FETCH_WAIT_MS,
        **({"group_instance_id": settings.sink_id} if settings.sink_id else {}),
    )
    server = serve_health(
        health, metrics.registry, settings.metrics_host, settings.sink_metrics_port
    )
    patience = Patience(partial(health.problem, "influxdb"), partial(health.fine, "influxdb"))
    store = InfluxReadingStore(influx, profile, patience)
    writer = BatchWriter(store, kafka, profile, health)
    dead_letters = DeadLetters(kafka, profile, metrics, health)
    Sink(
        consumer,
        fatal,
        commits,
        profile,
        OpenBatches(store, settings.sink_batch_readings, settings.sink_linger.total_seconds()),
        writer,
        Writes(writer, dead_letters, settings.sink_writes_in_flight),
        metrics,
        health,
        stop=stop,
        drain_limit=settings.drain_limit,
    ).run()
    server.shutdown()
