"""Wires the workers: the one place where settings meet clients."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import timedelta

import structlog
from confluent_kafka import KafkaError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential_jitter,
)
from tenacity.nap import sleep_using_event

from headrace.errors import AccessDeniedError, HeadraceError
from headrace.ingest.batch import OpenBatches
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.bridge import Bridge
from headrace.ingest.commits import Commits
from headrace.ingest.health import Health, serve_health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics, SinkMetrics
from headrace.ingest.outbox import Outbox
from headrace.ingest.redelivery import Bookmarks, Fingerprint, RecentPackets, recorded_packets
from headrace.ingest.roll_call import RollCall, recorded_presence
from headrace.ingest.routing import filters_within, status_filter_of
from headrace.ingest.sink import Sink
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES
from headrace.models.presence import Presence
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile, load_profile
from headrace.settings import Settings
from headrace.storage.influx import Influx, influx_address
from headrace.storage.kafka import Kafka, error_of
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription

__all__ = ["bridge_subscriptions", "make_session", "run_bridge", "run_sink"]

_log = structlog.get_logger(__name__)

_INFLUX_SECONDS = timedelta(seconds=10)
#: Kafka answers the sink when it has so much, or after so long.
_FETCH_BYTES, _FETCH_WAIT_MS = 64 * 1024, 100


def make_codec(settings: Settings, profile: Profile) -> ReadingCodec:
    """Make the codec that the settings and the profile describe."""
    return ReadingCodec(
        profile,
        max_payload_bytes=settings.max_payload_bytes,
        max_age=settings.raw_retention,
        max_ahead=settings.max_time_ahead,
    )


def bridge_subscriptions(settings: Settings, profile: Profile) -> tuple[Subscription, ...]:
    """What the bridge subscribes: readings, and the presence of their devices."""
    readings = filters_within(profile.mqtt, settings.mqtt_topics)
    statuses = dict.fromkeys(status_filter_of(profile.mqtt, item) for item in readings)
    return (
        *(Subscription(item) for item in readings),
        *(Subscription(item, retained=True) for item in statuses),
    )


def make_session(settings: Settings, profile: Profile) -> MqttSession:
    """Make the bridge's session at the broker, not yet connected."""
    return MqttSession(
        MqttAddress.from_settings(settings),
        settings.bridge_id,
        bridge_subscriptions(settings, profile),
        keepalive=settings.mqtt_keepalive,
        session_expiry=settings.mqtt_session_expiry,
        receive_maximum=settings.mqtt_receive_maximum,
        keep_bytes=max(MAX_DEAD_LETTER_BYTES, settings.max_payload_bytes + 1),
    )


def run_bridge(settings: Settings, stop: threading.Event, *, retire: bool = False) -> None:
    """Run a bridge until told to stop.

    Parameters
    ----------
    settings
        The settings.
    stop
        Set when the bridge is to stop.
    retire
        Subscribe nothing, empty the session, and remove it from the broker.

    Raises
    ------
    PermanentError
        If a setting is wrong: the message names it.
    TransientError
        If a new process should begin anew.
    """
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    metrics = BridgeMetrics()
    health = Health("bridge", ["mqtt", "kafka"])
    session = make_session(settings, profile)
    server = serve_health(
        health, metrics.registry, settings.metrics_host, settings.bridge_metrics_port
    )
    with closing(Bookmarks(kafka, settings.bridge_id)) as bookmarks:
        recalled = _recall(kafka, bookmarks, profile, settings.bridge_id, health, stop)
        if recalled is None:
            return
        known, presence = recalled
        outbox = Outbox(kafka, settings.bridge_buffer_bytes)
        in_flight = InFlight(settings.bridge_buffer_bytes)
        recent = RecentPackets(known)
        intake = Intake(
            profile,
            make_codec(settings, profile),
            outbox,
            in_flight,
            recent,
            RollCall(presence),
            metrics,
            bridge=settings.bridge_id,
            max_clock_drift=settings.max_clock_drift,
            last_ns=max((item.taken_ns for item in known), default=0),
        )
        Bridge(
            session,
            outbox,
            intake,
            in_flight,
            recent,
            bookmarks,
            metrics,
            health,
            stop=stop,
            drain_limit=settings.drain_limit,
            retire=retire,
        ).run()
    server.shutdown()


def _recall(
    kafka: Kafka,
    bookmarks: Bookmarks,
    profile: Profile,
    bridge: str,
    health: Health,
    stop: threading.Event,
) -> tuple[list[Fingerprint], dict[str, Presence]] | None:
    """Read what Kafka holds of this bridge and of the devices' presence.

    `None` if told to stop before Kafka answered.
    """

    def not_yet(attempt: RetryCallState) -> None:
        health.beat()
        if attempt.outcome is not None:
            health.problem("kafka", str(attempt.outcome.exception()))

    attempts = Retrying(
        # A topic that is missing may be about to be provisioned.
        retry=retry_if_exception_type(HeadraceError),
        wait=wait_exponential_jitter(initial=0.2, max=5.0, jitter=0.2),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=not_yet,
        reraise=True,
    )
    topics = (profile.topics.raw, profile.topics.dead_letter)

    def recall() -> tuple[list[Fingerprint], dict[str, Presence]]:
        kafka.check_connection()
        packets = recorded_packets(kafka, bookmarks, topics, bridge)
        return packets, recorded_presence(kafka, profile)

    try:
        known, presence = attempts(recall)
    except HeadraceError:
        return None
    health.fine("kafka")
    _log.info("recalled the newest readings from Kafka", readings=len(known))
    return known, presence


def run_sink(settings: Settings, stop: threading.Event) -> None:
    """Run a sink until told to stop; raises as `run_bridge` does."""
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    metrics = SinkMetrics()
    health = Health("sink", ["kafka", "influxdb"])
    influx = Influx(
        influx_address(settings, "sink"),
        timeout=_INFLUX_SECONDS,
        connections=settings.sink_writes_in_flight,
    )
    commits = Commits(profile.topics.raw)

    def complain(error: KafkaError) -> None:
        # librdkafka deals with the rest by itself, but a refused login stays refused.
        problem = error_of(error)
        if isinstance(problem, AccessDeniedError):
            health.problem("kafka", str(problem))

    consumer = kafka.consumer(
        profile.sink_group,
        error_cb=complain,
        on_commit=commits.report,
        partition_assignment_strategy="cooperative-sticky",
        session_timeout_ms=10_000,
        heartbeat_interval_ms=2_000,
        queued_max_messages_kbytes=settings.sink_buffer_bytes // 1024,
        # As soon as there is room again: librdkafka would wait a second.
        fetch_queue_backoff_ms=10,
        # A fleet that sends steadily would have a fetch answered for every few readings.
        fetch_min_bytes=_FETCH_BYTES,
        fetch_wait_max_ms=_FETCH_WAIT_MS,
        **({"group_instance_id": settings.sink_id} if settings.sink_id else {}),
    )
    codec = make_codec(settings, profile)
    server = serve_health(
        health, metrics.registry, settings.metrics_host, settings.sink_metrics_port
    )
    Sink(
        consumer,
        commits,
        profile,
        OpenBatches(codec, settings.sink_batch_readings, settings.sink_linger.total_seconds()),
        BatchWriter(influx, kafka, profile, codec, metrics, health),
        metrics,
        health,
        stop=stop,
        writes_in_flight=settings.sink_writes_in_flight,
        drain_limit=settings.drain_limit,
    ).run()
    server.shutdown()
