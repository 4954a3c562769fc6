"""Brokers that redeliver without DUP, and brokers that reuse packet ids at once."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from headrace.ingest.unmarked import EXCEEDED, UNMARKED
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from tests.support.bridge_world import BridgeUnderTest, FakeOutbox, Session, World, lost


class KilledError(Exception):
    """Stands for SIGKILL."""


class KafkaThatIsSlow(FakeOutbox):
    """Confirms nothing for the first ten seconds."""

    def deliver(self) -> int:
        return super().deliver() if self.world.now > 1010 else 0


@pytest.fixture
def world(profile: Profile, codec: ReadingCodec, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(profile, codec, monkeypatch)


def run(world: World, seconds: float = 60.0) -> BridgeUnderTest:
    bridge = world.bridge()
    end = world.now + seconds
    world.on_wait = lambda: world.now > end and bridge.stop.set()
    assert bridge.run() is None
    return bridge


def kill_at_acknowledge(world: World) -> None:
    """Kill the next bridge at the worst moment: stored in Kafka but not acknowledged."""

    def kill(_: int, name: str) -> None:
        if name == "acknowledge":
            raise KilledError

    world.on_call = kill
    with pytest.raises(KilledError):
        world.bridge().run()
    world.on_call = None
    world.broker.holder = None


def lose_connections(world: World, name: str, times: int) -> None:
    failures = iter(range(times))

    def fail(_: int, called: str) -> None:
        if called == name and next(failures, None) is not None:
            world.broker.holder = None
            raise lost()

    world.on_call = fail


@pytest.mark.parametrize("reuses_ids", [False, True])
@pytest.mark.parametrize("at", ["acknowledge", "receive"])
def test_broken_connections_store_nothing_twice(world: World, at: str, *, reuses_ids: bool) -> None:
    world.broker.marks, world.broker.reuses_ids = False, reuses_ids
    for number in range(300):
        world.broker.publish(number)
    lose_connections(world, at, 5)
    with capture_logs() as logged:
        bridge = run(world)
    assert sorted(world.kafka.numbers()) == list(range(300))
    assert not world.broker.unacknowledged
    if at == "acknowledge":
        said = [entry["shortfall"] for entry in logged if "shortfall" in entry]
        assert set(said) == {UNMARKED}
        assert bridge.health.report()[1]["shortfalls"] == [UNMARKED]


@pytest.mark.parametrize("reuses_ids", [False, True])
@pytest.mark.parametrize("marks", [False, True])
def test_a_killed_bridge_stores_nothing_twice(
    world: World, *, marks: bool, reuses_ids: bool
) -> None:
    """The next process has only the records in Kafka."""
    world.broker.marks, world.broker.reuses_ids = marks, reuses_ids
    for number in range(300):
        world.broker.publish(number)
    for _ in range(3):
        kill_at_acknowledge(world)
    run(world)
    assert sorted(world.kafka.numbers()) == list(range(300))
    assert not world.broker.unacknowledged


class BrokerThatIgnoresReceiveMaximum(Session):
    """Sends all that waits at once: the bridge allows a thousand messages."""

    def connect(self) -> bool:
        self.broker.receive_maximum = 1500
        return super().connect()


@pytest.mark.parametrize("waiting", [900, 1500])
def test_a_broker_that_exceeds_receive_maximum_is_reported(world: World, waiting: int) -> None:
    for number in range(waiting):
        world.broker.publish(number)
    bridge = world.bridge(session=BrokerThatIgnoresReceiveMaximum, outbox=KafkaThatIsSlow)
    end = world.now + 60
    world.on_wait = lambda: world.now > end and bridge.stop.set()
    assert bridge.run() is None
    assert sorted(world.kafka.numbers()) == list(range(waiting))
    reported = bridge.health.report()[1]["shortfalls"]
    assert reported == ([EXCEEDED] if waiting > 1000 else [])


def test_the_same_reading_under_the_same_packet_id_is_another_one(world: World) -> None:
    """With a broker that sets DUP and reuses low ids, the bridge reconnects once to find out."""
    world.broker.reuses_ids = True
    total = 0
    with capture_logs() as logged:
        for readings in (30, 20, 1, 40):
            for _ in range(readings):
                world.broker.publish(7)
            total += readings
            run(world, 20)
            assert world.kafka.numbers() == [7] * total
    assert not world.broker.unacknowledged
    assert not [entry for entry in logged if "shortfall" in entry]
