"""A broker and a Kafka in memory, with a simulated clock, for tests of the bridge's loop."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Message

from headrace.errors import HeadraceError, ServerUnavailableError, SessionTakenOverError
from headrace.ingest import bridge as bridge_module
from headrace.ingest import bridge_monitor as monitor_module
from headrace.ingest import session_recovery as recovery_module
from headrace.ingest.backoff import Backoff
from headrace.ingest.bookmarks import Bookmarks
from headrace.ingest.bridge import Bridge
from headrace.ingest.bridge_monitor import BridgeMonitor
from headrace.ingest.fingerprints import Fingerprint, digest_of
from headrace.ingest.health import Health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox
from headrace.ingest.presence import PresenceRegistry
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.retirement import Retirement
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.mqtt import MqttSession
from headrace.storage.mqtt_stream import DUP, Publish
from headrace.storage.records import SkippedRecords
from tests.support.devices import reading

__all__ = ["Broker", "KafkaInMemory", "World"]

_AT_QOS_1 = 0x02
_CHUNK = 50


class Broker:
    """Keeps one session: queued messages, and sent messages without acknowledgement."""

    def __init__(self) -> None:
        self.queue: list[bytes] = []
        self.unacknowledged: dict[int, bytes] = {}
        self.session = True
        self.subscribed = True
        self.packet_id = 0
        self.receive_maximum = 100
        #: Whether it sets DUP on what it sends again.
        self.marks = True
        #: Whether it takes the lowest free packet id, again and again.
        self.reuses_ids = False
        #: The connected client.
        self.holder: Session | None = None
        self.connects = 0

    def publish(self, number: int) -> None:
        """Accept a reading; the device has its acknowledgement when this returns."""
        if self.session and self.subscribed:
            self.queue.append(json.dumps(reading("generator1", fuel=number)).encode())

    def remove_session(self) -> None:
        self.session, self.subscribed = False, False
        self.queue.clear()
        self.unacknowledged.clear()

    def send(self) -> list[Publish]:
        sent: list[Publish] = []
        while self.queue and len(self.unacknowledged) < self.receive_maximum and len(sent) < _CHUNK:
            self.packet_id = 0 if self.reuses_ids else self.packet_id
            self.packet_id = self.packet_id % 65_535 + 1
            while self.packet_id in self.unacknowledged:
                self.packet_id += 1
            payload = self.unacknowledged[self.packet_id] = self.queue.pop(0)
            sent.append((_AT_QOS_1, self.packet_id, b"emergency_generator/generator1", payload))
        return sent

    def send_again(self) -> list[Publish]:
        dup = DUP if self.marks else 0
        return [
            (_AT_QOS_1 | dup, packet_id, b"emergency_generator/generator1", payload)
            for packet_id, payload in self.unacknowledged.items()
        ]


class Session:
    """The client's side of a session; fakes override the methods that misbehave."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broker = world.broker
        self.again: list[Publish] = []
        self.shortfalls: tuple[str, ...] = ()

    @property
    def connected(self) -> bool:
        return self.broker.holder is self

    def connect(self) -> bool:
        self.world.call("connect")
        broker = self.broker
        broker.connects += 1
        broker.holder = self
        resumed, broker.session, broker.subscribed = broker.session, True, True
        self.again = broker.send_again()
        return resumed

    def check(self) -> None:
        if self.broker.holder is not self:
            msg = "another client"
            raise SessionTakenOverError(msg)

    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        self.world.call("receive")
        self.check()
        if not reading:
            self.world.wait(timeout)
            return []
        again, self.again = self.again, []
        if published := again + self.broker.send():
            return published
        self.world.wait(timeout)
        return []

    def acknowledge(self, packet_ids: list[int]) -> None:
        self.world.call("acknowledge")
        self.check()
        for packet_id in packet_ids:
            del self.broker.unacknowledged[packet_id]

    def unsubscribe(self) -> None:
        self.world.call("unsubscribe")
        self.check()
        self.broker.subscribed = False

    def leave(self, timeout: float, *, forever: bool = False) -> None:
        del timeout
        self.world.call("leave")
        if self.broker.holder is self:
            self.broker.holder = None
            if forever:
                self.broker.remove_session()

    def exists(self) -> bool:
        """Answer as `headrace.storage.mqtt_probe` does."""
        self.world.call("exists")
        return self.broker.session


class KafkaInMemory:
    """Keeps records and confirms them at the next poll."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def numbers(self) -> list[int]:
        return [json.loads(record["value"])["fuel"] for record in self.records]

    def packets(self, bridge: bytes) -> set[Fingerprint]:
        headers = [(dict(record["headers"]), record["value"]) for record in self.records]
        return {
            Fingerprint(
                int(found["seq"]), int(found["time_ns"]), int(found["packet_id"]), digest_of(value)
            )
            for found, value in headers
            if found["bridge"] == bridge
        }


class Producer:
    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: list[dict[str, Any]] = []

    def produce(self, topic: str, value: bytes, key: bytes, **rest: Any) -> None:
        self.waiting.append({"topic": topic, "value": value, "key": key, **rest})

    def poll(self) -> int:
        waiting, self.waiting = self.waiting, []
        for record in waiting:
            self.world.kafka.records.append(record)
            offset = len(self.world.kafka.records) - 1
            message = SimpleNamespace(
                topic=lambda record=record: record["topic"],
                partition=lambda: 0,
                offset=lambda offset=offset: offset,
            )
            record["on_delivery"](None, cast("Message", message))
        return len(waiting)


class FakeOutbox:
    """Kafka's producers; fakes override `deliver`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.batching = self.isolated = Producer(world)

    def poll(self, seconds: float) -> None:
        self.world.call("poll")
        if not self.deliver():
            self.world.wait(seconds)

    def deliver(self) -> int:
        return self.batching.poll()

    def discard(self) -> None:
        self.batching.waiting.clear()


class RecallFromMemory:
    def __init__(self, world: World, recent: RecentPackets, name: str) -> None:
        self.world = world
        self.recent = recent
        self.name = name.encode()
        self.known: set[Fingerprint] = set()
        self.reads = 0

    def read(self) -> int:
        self.world.call("read")
        self.reads += 1
        new = self.world.kafka.packets(self.name) - self.known
        self.known |= new
        return len(new)

    def apply(self, *, resumed: bool) -> None:
        self.recent.reset(self.known)
        if not resumed:
            self.recent.forget()


@dataclass
class World:
    """The servers and the clock of a test. The clock moves only while a bridge waits.

    Parameters
    ----------
    profile, codec
        The kind of device.
    monkeypatch
        Installs the clock.
    """

    profile: Profile
    codec: ReadingCodec
    monkeypatch: pytest.MonkeyPatch
    broker: Broker = field(default_factory=Broker)
    kafka: KafkaInMemory = field(default_factory=KafkaInMemory)
    now: float = 1000.0
    #: Whether the broker's port accepts connections.
    broker_accepts: bool = True
    calls: int = 0
    #: Called with number and name of each call to a server.
    on_call: Callable[[int, str], None] | None = None
    #: Called after each move of the clock.
    on_wait: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        clock = SimpleNamespace(monotonic=self.clock)
        for module in (bridge_module, monitor_module, recovery_module):
            self.monkeypatch.setattr(module, "time", clock)

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.on_wait is not None:
            self.on_wait()

    def call(self, name: str) -> None:
        self.calls += 1
        # Each call takes time, so that no wait is endless.
        self.now += 0.001
        if self.on_call is not None:
            self.on_call(self.calls, name)

    def bridge(
        self,
        *,
        session: Callable[[World], Session] = Session,
        outbox: Callable[[World], FakeOutbox] = FakeOutbox,
        retire: bool = False,
        name: str = "bridge-1",
    ) -> BridgeUnderTest:
        return BridgeUnderTest(self, session(self), outbox(self), name, retire=retire)


class BridgeUnderTest:
    """A bridge and its parts, which the test can inspect."""

    def __init__(
        self, world: World, session: Session, outbox: FakeOutbox, name: str, *, retire: bool
    ) -> None:
        self.session = session
        self.outbox = outbox
        self.stop = threading.Event()
        self.health = Health("bridge", ["mqtt", "kafka"])
        self.in_flight = InFlight(1 << 24)
        recent = RecentPackets()
        self.skipped = SkippedRecords()
        self.metrics = metrics = BridgeMetrics()
        self.intake = Intake(
            world.profile,
            world.codec,
            cast("Outbox", outbox),
            self.in_flight,
            recent,
            PresenceRegistry({}),
            metrics,
            bridge=name,
            max_clock_drift=timedelta(seconds=5),
        )
        self.recall = RecallFromMemory(world, recent, name)
        bookmarks = cast("Bookmarks", SimpleNamespace(save=lambda _: None))
        self.retirement = Retirement(session.exists, clock=world.clock) if retire else None
        self.bridge = Bridge(
            cast("MqttSession", session),
            cast("Outbox", outbox),
            self.intake,
            self.in_flight,
            recent,
            self.recall,
            BridgeMonitor(
                self.intake, self.in_flight, bookmarks, metrics, self.health, self.skipped
            ),
            self.health,
            bridge=name,
            stop=self.stop,
            drain_limit=timedelta(seconds=10),
            broker_accepts=lambda: world.broker_accepts,
            retirement=self.retirement,
            reconnect=Backoff(0.2, 5.0, clock=world.clock),
            taken_over=Backoff(3.0, 30.0, good_after=60.0, clock=world.clock),
        )

    def run(self) -> HeadraceError | None:
        """Run the bridge until it ends; return its error."""
        try:
            self.bridge.run()
        except HeadraceError as exc:
            return exc
        return None

    def state(self, condition: str) -> str:
        _, report = self.health.report()
        conditions = cast("dict[str, dict[str, str]]", report["conditions"])
        return conditions[condition]["state"]


def lost(what: str = "lost the connection") -> ServerUnavailableError:
    return ServerUnavailableError(what)
