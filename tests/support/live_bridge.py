"""A bridge with a real MQTT session and a Kafka in memory, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Message

from headrace.ingest import bridge as bridge_module
from headrace.ingest import bridge_monitor as monitor_module
from headrace.ingest.backoff import Backoff
from headrace.ingest.bookmarks import Bookmarks
from headrace.ingest.bridge import Bridge
from headrace.ingest.bridge_monitor import BridgeMonitor
from headrace.ingest.fingerprints import fingerprint_of
from headrace.ingest.health import Health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox
from headrace.ingest.presence import PresenceRegistry
from headrace.ingest.redelivery import RecentPackets
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.kafka import Record
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription

__all__ = ["InstantKafka", "running_bridge"]

#: Speed of the bridge's clock, which shortens its pauses.
_SPEED = 100.0
_BRIDGE = "bridge-1"
_PATIENCE = 30.0


class InstantKafka:
    """Keeps records and confirms them at the next poll."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._waiting: list[tuple[Record, Any]] = []

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **rest: Any) -> None:
        headers = {
            name: item.encode() if isinstance(item, str) else item for name, item in rest["headers"]
        }
        record = SimpleNamespace(topic=topic, value=value or b"", key=key or b"", headers=headers)
        self._waiting.append((cast("Record", record), rest["on_delivery"]))

    def poll(self, seconds: float) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            time.sleep(min(seconds, 0.002))
        for record, report in waiting:
            self.records.append(record)
            place = SimpleNamespace(
                topic=lambda record=record: record.topic, partition=lambda: 0, offset=lambda: 0
            )
            report(None, cast("Message", place))

    def discard(self) -> None:
        self._waiting.clear()

    def outbox(self) -> Outbox:
        kafka = SimpleNamespace(batching=self, isolated=self, poll=self.poll, discard=self.discard)
        return cast("Outbox", kafka)


class RecallOfRecords:
    """Reads the session's records from memory."""

    def __init__(self, kafka: InstantKafka, recent: RecentPackets, intake: Intake) -> None:
        self._kafka, self._recent, self._intake = kafka, recent, intake
        self._read = 0
        self._known: set[Any] = set()

    def read(self) -> int:
        new = self._kafka.records[self._read :]
        self._read += len(new)
        kept = [record for record in new if record.topic != "generator_status"]
        self._known |= {fingerprint_of(record, _BRIDGE.encode()) for record in kept} - {None}
        return len(kept)

    def apply(self, *, resumed: bool) -> None:
        self._recent.reset(self._known)
        self._intake.recalled()
        if not resumed:
            self._recent.forget()


@contextmanager
def running_bridge(
    port: int,
    kafka: InstantKafka,
    profile: Profile,
    codec: ReadingCodec,
    *,
    receive_maximum: int = 1000,
    wake: Callable[[], None] = lambda: None,
) -> Iterator[list[BaseException]]:
    """Run a bridge in a thread; yield the list of its errors.

    Parameters
    ----------
    port
        Port of the broker.
    kafka
        Stores the bridge's records.
    profile, codec
        The kind of device.
    receive_maximum
        Maximum number of unacknowledged messages.
    wake
        Makes the broker send something, so that the bridge stops at once.
    """

    def clock() -> float:
        return time.monotonic() * _SPEED

    session = MqttSession(
        MqttAddress("127.0.0.1", port),
        _BRIDGE,
        (
            Subscription("emergency_generator/+"),
            Subscription("emergency_generator/+/status", retained=True),
        ),
        keepalive=timedelta(seconds=30),
        session_expiry=timedelta(days=7),
        receive_maximum=receive_maximum,
        keep_bytes=MAX_DEAD_LETTER_BYTES,
    )
    in_flight, recent, metrics = InFlight(1 << 24), RecentPackets(), BridgeMetrics()
    health, stop = Health("bridge", ["mqtt", "kafka"]), threading.Event()
    outbox = kafka.outbox()
    intake = Intake(
        profile,
        codec,
        outbox,
        in_flight,
        recent,
        PresenceRegistry({}),
        metrics,
        bridge=_BRIDGE,
        max_clock_drift=timedelta(seconds=5),
    )
    bookmarks = cast("Bookmarks", SimpleNamespace(save=lambda _: None))
    bridge = Bridge(
        session,
        outbox,
        intake,
        in_flight,
        recent,
        RecallOfRecords(kafka, recent, intake),
        BridgeMonitor(intake, in_flight, bookmarks, metrics, health),
        health,
        bridge=_BRIDGE,
        stop=stop,
        drain_limit=timedelta(seconds=10),
        reconnect=Backoff(0.2, 5.0, clock=clock),
        taken_over=Backoff(5.0, 60.0, factor=3.0, good_after=300.0, clock=clock),
    )
    raised: list[BaseException] = []

    def run() -> None:
        try:
            bridge.run()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test fails for it
            raised.append(exc)

    with pytest.MonkeyPatch.context() as patch:
        for module in (bridge_module, monitor_module):
            patch.setattr(module, "time", SimpleNamespace(monotonic=clock))
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield raised
        finally:
            stop.set()
            wake()
            thread.join(_PATIENCE)
            assert not thread.is_alive(), "the bridge hangs"
