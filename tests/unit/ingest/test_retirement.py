"""Retiring a bridge loses no acknowledged reading, whatever interrupts it."""

from __future__ import annotations

import itertools

import pytest

from headrace.errors import (
    FatalError,
    HeadraceError,
    NotRetiredError,
    ServerTimeoutError,
)
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.mqtt_stream import Publish
from tests.support.bridge_world import BridgeUnderTest, Session, World, lost

READINGS = 230
#: Calls at which the broker or Kafka can fail.
MQTT_CALLS = {"connect", "receive", "acknowledge", "unsubscribe", "exists"}


@pytest.fixture
def world(profile: Profile, codec: ReadingCodec, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(profile, codec, monkeypatch)
    for number in range(READINGS):
        made.broker.publish(number)
    return made


def run_next_bridge(world: World) -> None:
    """Run an ordinary bridge with the same id, which takes the remaining readings."""
    bridge = world.bridge()
    end = world.now + 30

    def stop(_: int, __: str) -> None:
        if world.now > end:
            bridge.stop.set()

    world.on_call = stop
    assert bridge.run() is None


def assert_nothing_is_lost(world: World, error: HeadraceError | None) -> None:
    if error is None:
        assert not world.broker.session
    elif world.broker.session:
        run_next_bridge(world)
    assert sorted(world.kafka.numbers()) == list(range(READINGS))


def count_calls(profile: Profile, codec: ReadingCodec, monkeypatch: pytest.MonkeyPatch) -> int:
    world = World(profile, codec, monkeypatch)
    for number in range(READINGS):
        world.broker.publish(number)
    assert world.bridge(retire=True).run() is None
    return world.calls


def interrupted(world: World, number: int, how: str) -> BridgeUnderTest:
    """Create a retiring bridge that is interrupted at its n-th call to a server."""
    bridge = world.bridge(retire=True)

    def interrupt(count: int, name: str) -> None:
        if count != number:
            return
        if how == "sigterm":
            bridge.stop.set()
        elif how == "taken over" and name in MQTT_CALLS - {"exists", "connect"}:
            world.broker.holder = None
        elif how == "broker lost" and name in MQTT_CALLS:
            world.broker.holder = None
            raise lost()
        elif how == "kafka away" and name == "read":
            msg = "Kafka is away"
            raise ServerTimeoutError(msg)
        elif how == "fatal" and name in ("poll", "read"):
            msg = "producer"
            raise FatalError(msg)

    world.on_call = interrupt
    return bridge


@pytest.mark.parametrize("how", ["sigterm", "taken over", "broker lost", "kafka away", "fatal"])
def test_retiring_interrupted_at_any_call_loses_nothing(
    profile: Profile, codec: ReadingCodec, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    calls = count_calls(profile, codec, monkeypatch)
    assert calls > 50
    outcomes = set()
    for number in range(1, calls + 1):
        world = World(profile, codec, monkeypatch)
        for reading in range(READINGS):
            world.broker.publish(reading)
        bridge = interrupted(world, number, how)
        error = bridge.run()
        outcomes.add(type(error))
        assert bridge.retirement is not None
        if not bridge.retirement.emptied:
            assert world.broker.session, f"removed at call {number}, error {error!r}"
            assert error is not None
        assert_nothing_is_lost(world, error)
    expected = {
        "sigterm": {NotRetiredError, type(None)},
        "taken over": {NotRetiredError, type(None)},
        "broker lost": {NotRetiredError, type(None)},
        "kafka away": {type(None)},
        "fatal": {FatalError, type(None)},
    }
    assert outcomes == expected[how]


def test_retiring_stores_every_reading_and_removes_the_session(world: World) -> None:
    assert world.bridge(retire=True).run() is None
    assert world.kafka.numbers() == list(range(READINGS))
    assert not world.broker.session


def test_an_interrupted_retirement_reports_that_nothing_was_removed(world: World) -> None:
    bridge = world.bridge(retire=True)
    bridge.stop.set()
    error = bridge.run()
    assert isinstance(error, NotRetiredError)
    assert "Nothing was removed" in str(error)


def test_a_missing_session_is_reported(world: World) -> None:
    world.broker.remove_session()
    error = world.bridge(retire=True).run()
    assert isinstance(error, NotRetiredError)
    assert "has no session bridge-1" in str(error)
    # Connecting created a session; it is removed, too.
    assert not world.broker.session


def test_a_session_lost_during_retirement_is_reported(world: World) -> None:
    lost_once = iter([True])

    def lose(_: int, name: str) -> None:
        if name == "acknowledge" and next(lost_once, False):
            world.broker.holder = None
            world.broker.remove_session()
            raise lost()

    world.on_call = lose
    error = world.bridge(retire=True).run()
    assert isinstance(error, NotRetiredError)
    assert "lost the session bridge-1" in str(error)


class BrokerWhoseBridgeStillRuns(Session):
    """The other client takes the session back after some seconds."""

    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        if self.world.now > 1006 and self.broker.connects == 1:
            self.broker.holder = None
        return super().receive(timeout, reading=reading)


def test_a_running_bridge_is_not_retired(world: World) -> None:
    error = world.bridge(retire=True, session=BrokerWhoseBridgeStillRuns).run()
    assert isinstance(error, NotRetiredError)
    assert "still runs" in str(error)
    assert_nothing_is_lost(world, error)


class BrokerThatHangs(Session):
    """Has queued messages but answers nothing for a while."""

    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        if 1002 < self.world.now < 1030:
            self.world.call("receive")
            self.world.wait(timeout)
            return []
        return super().receive(timeout, reading=reading)

    def unsubscribe(self) -> None:
        if 1002 < self.world.now < 1030:
            self.world.wait(5)
            self.broker.holder = None
            msg = "the broker does not answer"
            raise ServerTimeoutError(msg)
        super().unsubscribe()


def test_a_hanging_broker_is_not_mistaken_for_an_empty_session(world: World) -> None:
    slow = itertools.count()

    def slowly(_: int, name: str) -> None:
        if name == "receive" and next(slow) > 10:
            world.now += 0.5

    world.on_call = slowly
    error = world.bridge(retire=True, session=BrokerThatHangs).run()
    assert error is None
    assert sorted(world.kafka.numbers()) == list(range(READINGS))


class BrokerThatIgnoresTheRemoval(Session):
    def leave(self, timeout: float, *, forever: bool = False) -> None:
        del forever
        super().leave(timeout)

    def exists(self) -> bool:
        self.world.call("exists")
        return True


class BrokerThatDiesAtTheRemoval(Session):
    def exists(self) -> bool:
        raise lost()


@pytest.mark.parametrize(
    ("session", "text"),
    [
        (BrokerThatIgnoresTheRemoval, "still has it"),
        (BrokerThatDiesAtTheRemoval, "did not confirm its removal"),
    ],
)
def test_an_unconfirmed_removal_is_an_error(
    world: World, session: type[Session], text: str
) -> None:
    error = world.bridge(retire=True, session=session).run()
    assert isinstance(error, NotRetiredError)
    assert text in str(error)
    assert sorted(world.kafka.numbers()) == list(range(READINGS))
