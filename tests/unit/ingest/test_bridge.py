"""The bridge's loop with a broker and a Kafka that misbehave."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from headrace.errors import (
    AccessDeniedError,
    ConnectionClosedError,
    FatalError,
    MissingResourceError,
    ServerUnavailableError,
)
from headrace.ingest.stamps import ClockJump
from headrace.models.foreign import ForeignReason
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.mqtt_stream import Publish
from tests.support.bridge_world import FakeOutbox, Producer, Session, World, lost


@pytest.fixture
def world(profile: Profile, codec: ReadingCodec, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(profile, codec, monkeypatch)


class BrokerThatDropsEveryConnection(Session):
    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        del timeout, reading
        self.world.call("receive")
        self.broker.holder = None
        raise lost()


class BrokerThatDeliversAndThenDropsTheConnection(Session):
    """Sends a message, then bytes that can't be parsed, after each connection."""

    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        published = super().receive(timeout, reading=reading)
        if reading:
            self.broker.holder = None
            raise lost()
        return published


class BrokerThatRefusesTheLogin(Session):
    def connect(self) -> bool:
        self.world.call("connect")
        self.broker.connects += 1
        msg = "Not authorized"
        raise AccessDeniedError(msg)


class KafkaThatNeverConfirms(FakeOutbox):
    def deliver(self) -> int:
        return 0


class KafkaThatFailsForGood(FakeOutbox):
    """Its producer reports a fatal error instead of delivery reports."""

    def deliver(self) -> int:
        if self.batching.waiting:
            msg = "out of order sequence number"
            raise FatalError(msg)
        return 0


class KafkaThatConfirmsLate(FakeOutbox):
    """Records reach the log some time after they were sent, even if the sender is gone."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.on_the_wire: list[tuple[float, Producer]] = []

    def deliver(self) -> int:
        if self.batching.waiting:
            wire = Producer(self.world)
            wire.waiting, self.batching.waiting = self.batching.waiting, []
            self.on_the_wire.append((self.world.now + 0.3, wire))
        due = [wire for moment, wire in self.on_the_wire if moment <= self.world.now]
        self.on_the_wire = [item for item in self.on_the_wire if item[1] not in due]
        return sum(wire.poll() for wire in due)


def stop_after(world: World, bridge: object, seconds: float) -> None:
    """Stop a bridge after some time of the simulated clock."""
    end = world.now + seconds
    earlier = world.on_call

    def on_call(number: int, name: str) -> None:
        if earlier is not None:
            earlier(number, name)
        # A bridge that floods the broker has already failed the test.
        if world.now > end or world.broker.connects > 1000:
            bridge.stop.set()  # type: ignore[attr-defined]

    world.on_call = on_call


def test_readings_are_delivered_once_and_acknowledged(world: World) -> None:
    for number in range(500):
        world.broker.publish(number)
    bridge = world.bridge()
    stop_after(world, bridge, 10)
    assert bridge.run() is None
    assert world.kafka.numbers() == list(range(500))
    assert not world.broker.unacknowledged
    assert world.broker.session


@pytest.mark.parametrize(
    "session", [BrokerThatDropsEveryConnection, BrokerThatDeliversAndThenDropsTheConnection]
)
def test_the_bridge_reconnects_slowly_if_every_connection_is_dropped(
    world: World, session: type[Session]
) -> None:
    world.broker.publish(1)
    bridge = world.bridge(session=session)
    stop_after(world, bridge, 600)
    assert bridge.run() is None
    # At most one connection in 2.5 s after the pauses have grown.
    assert 50 < world.broker.connects < 260


def test_the_bridge_reconnects_slowly_if_the_broker_is_unavailable(world: World) -> None:
    def refuse(_: int, name: str) -> None:
        if name == "connect":
            world.broker.connects += 1
            raise lost()

    world.on_call = refuse
    bridge = world.bridge()
    stop_after(world, bridge, 600)
    assert bridge.run() is None
    assert 100 < world.broker.connects < 260
    assert "lost the connection" in bridge.state("mqtt")


def test_a_login_refused_at_the_start_ends_the_process(world: World) -> None:
    bridge = world.bridge(session=BrokerThatRefusesTheLogin)
    assert isinstance(bridge.run(), AccessDeniedError)
    assert world.broker.connects == 1


def test_a_login_refused_later_is_retried(world: World) -> None:
    bridge = world.bridge()

    def refuse(_: int, name: str) -> None:
        if name == "receive" and world.broker.connects == 1 and world.now > 1010:
            world.broker.holder = None
            raise lost()
        if name == "connect" and 1 <= world.broker.connects < 5:
            world.broker.connects += 1
            msg = "Not authorized"
            raise AccessDeniedError(msg)

    world.on_call = refuse
    stop_after(world, bridge, 60)
    assert bridge.run() is None
    assert world.broker.connects == 6
    assert bridge.state("mqtt") == "fine"


def test_a_kafka_that_never_confirms_makes_the_bridge_unhealthy(world: World) -> None:
    world.broker.publish(1)
    bridge = world.bridge(outbox=KafkaThatNeverConfirms)
    stop_after(world, bridge, 30)
    assert bridge.run() is None
    assert "confirms nothing" in bridge.state("kafka")
    assert list(world.broker.unacknowledged) == [1]
    assert world.broker.session


def test_after_a_fatal_error_nothing_is_delivered_or_acknowledged(world: World) -> None:
    for number in range(100):
        world.broker.publish(number)
    bridge = world.bridge(outbox=KafkaThatFailsForGood)
    error = bridge.run()
    assert isinstance(error, FatalError)
    assert "out of order" in bridge.state("kafka")
    assert world.kafka.records == []
    assert len(world.broker.unacknowledged) == 50
    again = world.bridge()
    stop_after(world, again, 10)
    assert again.run() is None
    assert sorted(world.kafka.numbers()) == list(range(100))


def test_a_fatal_error_in_a_delivery_report_ends_the_bridge(world: World) -> None:
    class KafkaThatReportsAFatalError(FakeOutbox):
        def deliver(self) -> int:
            for record in self.batching.waiting:
                error = KafkaError(KafkaError._FATAL, "sequence", True)
                record["on_delivery"](error, None)
            self.batching.waiting.clear()
            return 1

    world.broker.publish(1)
    bridge = world.bridge(outbox=KafkaThatReportsAFatalError)
    assert isinstance(bridge.run(), FatalError)
    assert list(world.broker.unacknowledged) == [1]


def test_redeliveries_of_stored_readings_are_not_stored_again(world: World) -> None:
    """The connection breaks after Kafka's confirmation and before the acknowledgement."""
    for number in range(300):
        world.broker.publish(number)
    failures = iter(range(5))

    def fail(_: int, name: str) -> None:
        if name == "acknowledge" and next(failures, None) is not None:
            world.broker.holder = None
            raise lost()

    world.on_call = fail
    bridge = world.bridge()
    stop_after(world, bridge, 60)
    assert bridge.run() is None
    assert sorted(world.kafka.numbers()) == list(range(300))


class KilledError(Exception):
    """Stands for SIGKILL."""


def test_two_bridges_with_one_id_store_nothing_twice(world: World) -> None:
    """The bridges take turns: one runs while the other waits."""
    bridge, other = world.bridge(outbox=KafkaThatConfirmsLate), None
    sent = 0
    running: list[str] = []

    def publish() -> None:
        nonlocal sent
        while sent < 800 and sent < (world.now - 1000) * 20:
            world.broker.publish(sent)
            sent += 1

    def take_over() -> None:
        """Run another bridge for some seconds while the first one waits."""
        nonlocal other
        publish()
        if "other" in running or world.broker.holder is not bridge.session:
            return
        if len(running) >= 4 or world.now < 1000 + 5 * (len(running) // 2 + 1):
            return
        running.append("other")
        other = world.bridge(outbox=KafkaThatConfirmsLate)
        end = world.now + 3
        earlier, world.on_wait = world.on_wait, publish

        def kill(_: int, name: str) -> None:
            # The worst moment: Kafka has the readings, and the broker has no acknowledgement.
            if world.now > end and name == "acknowledge":
                raise KilledError

        world.on_call, before = kill, world.on_call
        # Records of the first bridge arrive while the other one recovers the session.
        assert isinstance(bridge.outbox, KafkaThatConfirmsLate)
        wires, bridge.outbox.on_the_wire = bridge.outbox.on_the_wire, []
        for _, wire in wires:
            wire.poll()
        with pytest.raises(KilledError):
            other.run()
        world.on_wait, world.on_call = earlier, before
        running.remove("other")
        running.extend(["done", "done"])

    world.on_wait = take_over
    stop_after(world, bridge, 120)
    assert bridge.run() is None
    assert running.count("done") == 4
    assert sent == 800
    assert sorted(world.kafka.numbers()) == list(range(800))
    assert world.broker.connects < 8


def test_a_bridge_reports_a_session_takeover_and_waits(world: World) -> None:
    bridge = world.bridge()
    taken: list[float] = []
    states: list[str] = []

    def take(_: int, name: str) -> None:
        if name == "receive" and world.now > 1010 and not taken:
            taken.append(world.now)
            world.broker.holder = None
        elif name == "poll" and taken:
            states.append(bridge.state("mqtt"))
        elif name == "connect" and taken:
            taken.append(world.now)

    world.on_call = take
    reads = bridge.recall
    stop_after(world, bridge, 60)
    assert bridge.run() is None
    assert set(states[:3]) == {states[0]}
    assert "another client took this session" in states[0]
    assert "HEADRACE_BRIDGE_ID bridge-1" in states[0]
    assert 1.5 <= taken[1] - taken[0] <= 4
    # The recent records are read before and after each connection.
    assert reads.reads >= 4
    assert bridge.state("mqtt") == "fine"


def test_repeated_session_takeovers_lengthen_the_wait(world: World) -> None:
    bridge = world.bridge()
    connects: list[float] = []

    def take(_: int, name: str) -> None:
        if name == "connect":
            connects.append(world.now)
        if name == "receive" and connects and world.now > connects[-1] + 5:
            world.broker.holder = None

    world.on_call = take
    stop_after(world, bridge, 900)
    assert bridge.run() is None
    assert len(connects) < 60
    assert connects[-1] - connects[-2] > 15


class BrokerThatClosesWithoutAReason(Session):
    """Mosquitto 2.0 does this to a client whose session another client took."""

    def check(self) -> None:
        if self.broker.holder is not self:
            msg = "the broker or the network closed it"
            raise ConnectionClosedError(msg)


@pytest.mark.parametrize("accepts", [True, False])
def test_a_connection_closed_without_a_reason_hints_at_a_takeover(
    world: World,
    accepts: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """If the broker still accepts connections, another client probably took the session."""
    world.broker_accepts = accepts
    world.broker.publish(1)
    bridge = world.bridge(session=BrokerThatClosesWithoutAReason)
    states: list[str] = []
    moments: list[float] = []

    def close(_: int, name: str) -> None:
        if name == "receive" and world.now > 1005 and not moments:
            moments.append(world.now)
            world.broker.holder = None
        elif name == "connect" and moments:
            moments.append(world.now)
        elif name == "poll" and len(moments) == 1:
            states.append(bridge.state("mqtt"))

    world.on_call = close
    stop_after(world, bridge, 30)
    assert bridge.run() is None
    assert any("another client took this session" in state for state in states) == accepts
    assert (moments[1] - moments[0] > 1) == accepts
    assert world.kafka.numbers() == [1]


def test_the_bridge_waits_for_a_kafka_that_is_unavailable_at_the_start(world: World) -> None:
    failures = iter(range(10))

    def fail(_: int, name: str) -> None:
        if name == "read" and next(failures, None) is not None:
            msg = "topic kafka_raw is missing"
            raise MissingResourceError(msg)

    world.on_call = fail
    world.broker.publish(1)
    bridge = world.bridge()
    states: list[str] = []
    world.on_wait = lambda: states.append(bridge.state("kafka"))
    stop_after(world, bridge, 100)
    assert bridge.run() is None
    assert "topic kafka_raw is missing" in states
    assert world.kafka.numbers() == [1]
    assert bridge.state("kafka") == "fine"


def test_kafka_failing_during_session_recovery_loses_nothing(world: World) -> None:
    reads = 0

    def fail(_: int, name: str) -> None:
        nonlocal reads
        if name == "read":
            reads += 1
            if reads == 2:
                msg = "Kafka is away"
                raise ServerUnavailableError(msg)

    world.on_call = fail
    for number in range(10):
        world.broker.publish(number)
    bridge = world.bridge()
    stop_after(world, bridge, 60)
    assert bridge.run() is None
    assert world.broker.connects == 2
    assert world.kafka.numbers() == list(range(10))


def test_an_unexpected_error_ends_the_loop(world: World) -> None:
    def fail(_: int, name: str) -> None:
        if name == "acknowledge":
            raise ZeroDivisionError

    world.broker.publish(1)
    world.on_call = fail
    bridge = world.bridge()
    with pytest.raises(ZeroDivisionError):
        bridge.run()


def test_limits_of_the_broker_are_logged_and_reported(world: World) -> None:
    bridge = world.bridge()
    sentence = "the broker keeps the session for 60 s only: what it queues longer is lost"
    bridge.session.shortfalls = (sentence,)
    stop_after(world, bridge, 5)
    with capture_logs() as logs:
        assert bridge.run() is None
    assert [entry.get("shortfall") for entry in logs].count(sentence) == 1
    assert bridge.health.report()[1]["shortfalls"] == [sentence]


def test_a_lost_session_is_logged_as_an_error(world: World) -> None:
    bridge = world.bridge()

    def restart(_: int, name: str) -> None:
        if name == "receive" and world.now > 1005 and world.broker.connects == 1:
            world.broker.holder = None
            world.broker.remove_session()
            raise lost()

    world.on_call = restart
    stop_after(world, bridge, 20)
    with capture_logs() as logs:
        assert bridge.run() is None
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["broker lost the session"]


class KafkaWithoutTheDeadLetterTopic(FakeOutbox):
    """Confirms readings but has no dead-letter topic."""

    def deliver(self) -> int:
        waiting = self.batching.waiting
        unknown = [record for record in waiting if record["topic"].endswith("dlq")]
        self.batching.waiting = [record for record in waiting if record not in unknown]
        for record in unknown:
            record["on_delivery"](KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), None)
        return self.batching.poll() + len(unknown)


def test_a_missing_dead_letter_topic_is_reported_while_readings_flow(world: World) -> None:
    for number in range(20):
        world.broker.publish(number)
    world.broker.queue.insert(10, b"no JSON")
    bridge = world.bridge(outbox=KafkaWithoutTheDeadLetterTopic)
    stop_after(world, bridge, 20)
    assert bridge.run() is None
    assert world.kafka.numbers() == list(range(20))
    assert "kafka_raw.dlq" in bridge.state("kafka")
    assert "headrace provision" in bridge.state("kafka")
    assert len(world.broker.unacknowledged) == 11


def test_the_bridge_reconnects_while_kafka_refuses_a_record(
    world: World,
) -> None:
    world.broker.queue.append(b"no JSON")
    bridge = world.bridge(outbox=KafkaWithoutTheDeadLetterTopic)
    ended = False

    def end(_: int, name: str) -> None:
        nonlocal ended
        if name == "receive" and world.now > 1010 and not ended:
            ended = True
            for number in range(20):
                world.broker.publish(number)
            world.broker.holder = None
            raise lost()

    world.on_call = end
    stop_after(world, bridge, 60)
    assert bridge.run() is None
    assert world.broker.connects == 2
    assert world.kafka.numbers() == list(range(20))
    assert "kafka_raw.dlq" in bridge.state("kafka")


def test_readings_in_flight_survive_a_lost_session(world: World) -> None:
    """The broker would not send them again."""

    class KafkaThatIsAwayForAWhile(FakeOutbox):
        def deliver(self) -> int:
            return self.batching.poll() if self.world.now > 1020 else 0

    for number in range(20):
        world.broker.publish(number)
    bridge = world.bridge(outbox=KafkaThatIsAwayForAWhile)

    def restart(_: int, name: str) -> None:
        if name == "receive" and world.now > 1005 and world.broker.connects == 1:
            world.broker.holder = None
            world.broker.remove_session()
            raise lost()

    world.on_call = restart
    stop_after(world, bridge, 60)
    assert bridge.run() is None
    assert world.kafka.numbers() == list(range(20))


def test_foreign_records_are_counted_by_topic_and_reason(world: World) -> None:
    bridge = world.bridge()
    bridge.skipped.counts["generator_status", ForeignReason.NOT_JSON] += 3
    stop_after(world, bridge, 5)
    assert bridge.run() is None
    labels = {"topic": "generator_status", "reason": "not_json"}
    registry = bridge.metrics.registry
    assert registry.get_sample_value("headrace_bridge_skipped_records_total", labels) == 3


def test_a_clock_jump_is_reported(world: World) -> None:
    bridge = world.bridge()
    bridge.intake.last_jump = ClockJump(1800.0, 1_700_000_000_000_000_000)
    stop_after(world, bridge, 5)
    assert bridge.run() is None
    noted = bridge.health.report()[1]["clock_jump"]
    assert noted == {"seconds": 1800.0, "at": "2023-11-14T22:13:20Z"}
