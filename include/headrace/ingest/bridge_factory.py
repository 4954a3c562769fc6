"""Creates the bridge and its clients from the settings."""

from __future__ import annotations

import threading
from contextlib import closing
from functools import partial

from headrace.ingest.bookmarks import Bookmarks
from headrace.ingest.bridge import Bridge
from headrace.ingest.bridge_monitor import BridgeMonitor
from headrace.ingest.devices import DeviceLimits
from headrace.ingest.factory import make_codec
from headrace.ingest.health import Health, serve_health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox
from headrace.ingest.presence import PresenceRegistry
from headrace.ingest.recall import KafkaRecall
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.retirement import Retirement
from headrace.ingest.routing import filters_within, status_filters
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES
from headrace.models.presence import Presence
from headrace.profile import Profile, load_profile
from headrace.settings import Settings
from headrace.storage.kafka import Kafka
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription
from headrace.storage.mqtt_probe import accepts_connections, session_exists
from headrace.storage.records import SkippedRecords

__all__ = ["bridge_subscriptions", "make_session", "run_bridge"]


def bridge_subscriptions(settings: Settings, profile: Profile) -> tuple[Subscription, ...]:
    """Return the bridge's subscriptions: readings and the presence of their devices."""
    readings = filters_within(profile.mqtt, settings.mqtt_topics)
    return (
        *(Subscription(item) for item in readings),
        *(Subscription(item, retained=True) for item in status_filters(profile.mqtt, readings)),
    )


def make_session(settings: Settings, profile: Profile) -> MqttSession:
    """Create the bridge's session at the broker without connecting."""
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
    """Run a bridge until `stop` is set.

    Parameters
    ----------
    settings
        The settings.
    stop
        Set when the bridge is to stop.
    retire
        Empty the session without new messages, and remove it from the broker.

    Raises
    ------
    PermanentError
        If a setting is wrong. The message names it.
    FatalError
        If a new process must be started.
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
        outbox = Outbox(kafka, settings.bridge_buffer_bytes)
        in_flight = InFlight(settings.bridge_buffer_bytes)
        recent = RecentPackets()
        presence: dict[str, Presence] = {}
        skipped = SkippedRecords()
        devices = DeviceLimits(settings.max_new_devices, settings.max_devices)
        intake = Intake(
            profile,
            make_codec(settings, profile),
            outbox,
            in_flight,
            recent,
            PresenceRegistry(presence),
            metrics,
            bridge=settings.bridge_id,
            max_clock_drift=settings.max_clock_drift,
            receive_maximum=settings.mqtt_receive_maximum,
            devices=devices,
        )
        address = MqttAddress.from_settings(settings)
        probe = partial(session_exists, address, settings.bridge_id, settings.mqtt_session_expiry)
        Bridge(
            session,
            outbox,
            intake,
            in_flight,
            recent,
            KafkaRecall(
                kafka,
                bookmarks,
                profile,
                settings.bridge_id,
                recent,
                presence,
                devices,
                skipped,
                intake.recalled,
            ),
            BridgeMonitor(intake, in_flight, bookmarks, metrics, health, skipped),
            health,
            bridge=settings.bridge_id,
            stop=stop,
            drain_limit=settings.drain_limit,
            broker_accepts=partial(accepts_connections, address),
            retirement=Retirement(probe) if retire else None,
        ).run()
    server.shutdown()
