"""The sink with servers that refuse requests, fail, or lose records."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message

from headrace.errors import FatalError
from headrace.ingest.batch import OpenBatches
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.commits import Commits
from headrace.ingest.dead_letters import DeadLetters
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.ingest.sink import Sink
from headrace.ingest.writes import Writes
from headrace.profile import Profile
from headrace.storage.influx_readings import InfluxReadingStore, Patience
from headrace.storage.kafka import FatalErrors, Record
from tests.support.sink_world import TOPIC, Cluster, Database, raw_message, run_until

BAD = b'{"generatorID": "g1"}'


@dataclass
class World:
    """A sink and its servers."""

    profile: Profile
    cluster: Cluster = field(default_factory=Cluster)
    database: Database = field(default_factory=Database)
    metrics: SinkMetrics = field(default_factory=SinkMetrics)
    health: Health = field(
        default_factory=lambda: Health("sink", ["kafka", "influxdb", "dead_letters"])
    )
    stop: threading.Event = field(default_factory=threading.Event)
    fatal: FatalErrors = field(default_factory=FatalErrors)
    drain: float = 5.0

    def __post_init__(self) -> None:
        self.cluster.committed_offsets[0] = 0

    def sink(self, batch: int = 5) -> Sink:
        cluster, database = cast("Any", self.cluster), cast("Any", self.database)
        commits = Commits(TOPIC)
        cluster.report = commits.report
        patience = Patience(
            partial(self.health.problem, "influxdb"), partial(self.health.fine, "influxdb")
        )
        store = InfluxReadingStore(database, self.profile, patience)
        writer = BatchWriter(store, cluster, self.profile, self.health)
        letters = DeadLetters(cluster, self.profile, self.metrics, self.health)
        return Sink(
            cluster,
            self.fatal,
            commits,
            self.profile,
            OpenBatches(store, batch, 0.01),
            writer,
            Writes(writer, letters, 2),
            self.metrics,
            self.health,
            stop=self.stop,
            drain_limit=timedelta(seconds=self.drain),
        )

    def run(self, until: Callable[[], bool]) -> None:
        run_until(until, self.sink().run, self.stop)

    def committed(self) -> int:
        return self.cluster.committed_offsets[0]

    def problem(self, condition: str) -> str:
        conditions = cast("dict[str, dict[str, str]]", self.health.report()[1]["conditions"])
        return conditions[condition]["state"]


@pytest.fixture
def world(profile: Profile) -> World:
    return World(profile)


def test_everything_is_written_and_committed(world: World) -> None:
    world.cluster.fetched += [raw_message(offset) for offset in range(23)]
    world.run(lambda: world.committed() == 23)
    assert world.database.fuel == list(range(23))
    assert world.cluster.closed


def test_nothing_is_committed_while_influxdb_is_unavailable(world: World) -> None:
    world.database.away = True
    world.drain = 0.2
    world.cluster.fetched += [raw_message(offset) for offset in range(60)]
    world.run(lambda: world.problem("influxdb").startswith("InfluxDB") and world.cluster.paused)
    assert world.committed() == 0
    assert world.database.fuel == []


def test_rejected_and_refused_readings_become_dead_letters(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.database.refused = b"fuel=7"
    messages = [raw_message(offset, BAD if offset == 3 else None) for offset in range(10)]
    world.cluster.fetched += messages

    def read_again(*_: object, **__: object) -> list[Any]:
        return [Record.of(message) for message in messages]

    monkeypatch.setattr("headrace.ingest.batch_writer.read_topic", read_again)
    world.run(lambda: world.committed() == 10)
    assert world.database.fuel == [0, 1, 2, 4, 5, 6, 8, 9]
    found = sorted((headers["reason"], headers["source"]) for _, headers in world.cluster.letters)
    assert found == [("influx_refused", f"{TOPIC}/0/7"), ("missing_field", f"{TOPIC}/0/3")]


def test_a_refused_reading_that_kafka_deleted_is_reported_as_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.database.refused = b"fuel=7"
    world.cluster.fetched += [raw_message(offset) for offset in range(10)]
    monkeypatch.setattr("headrace.ingest.batch_writer.read_topic", lambda *_, **__: [])
    world.run(lambda: world.committed() == 10)
    ((_, headers),) = world.cluster.letters
    assert headers["reason"] == "kafka_deleted"
    assert "refused 1 readings" in headers["detail"]
    assert "fuel=7" in headers["detail"]


def test_good_readings_are_written_while_the_dead_letter_topic_is_missing(world: World) -> None:
    """Readings are written; commits wait, so that no dead letter is lost."""
    world.cluster.letter_topic_missing = True
    world.cluster.fetched.append(raw_message(0, BAD))
    world.cluster.fetched += [raw_message(offset) for offset in range(1, 200)]
    sink = world.sink()
    missing = f"the topic {world.profile.topics.dead_letter}"

    def written() -> bool:
        return len(world.database.fuel) == 199 and missing in world.problem("dead_letters")

    def topic_comes_back() -> bool:
        if not written():
            return False
        assert world.committed() == 0
        world.cluster.letter_topic_missing = False
        return True

    state = {"back": False}

    def done() -> bool:
        state["back"] = state["back"] or topic_comes_back()
        return state["back"] and world.committed() == 200

    run_until(done, sink.run, world.stop)
    assert len(world.cluster.letters) == 1
    assert world.problem("dead_letters") == "fine"


def test_waiting_dead_letters_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.ingest.writes._MOST_WAITING", 10)
    world.cluster.letter_topic_missing = True
    world.drain = 0.2
    world.cluster.fetched.append(raw_message(0, BAD))
    world.cluster.fetched += [raw_message(offset) for offset in range(1, 1000)]
    world.run(lambda: world.cluster.paused)
    assert len(world.database.fuel) < 100
    assert world.committed() == 0


def test_deleted_records_are_reported_before_later_commits(
    world: World,
) -> None:
    world.cluster.committed_offsets[0] = 5
    world.cluster.first = 12
    world.cluster.letter_topic_missing = True
    world.drain = 0.2
    world.cluster.fetched += [raw_message(offset) for offset in range(12, 20)]
    world.run(lambda: len(world.database.fuel) == 8)
    assert world.committed() == 5
    assert world.cluster.letters == []

    again = World(world.profile, cluster=world.cluster)
    again.cluster._callbacks = {}
    again.cluster.committed_offsets[0] = 5
    again.cluster.letter_topic_missing = False
    again.cluster.fetched += [raw_message(offset) for offset in range(12, 20)]
    again.run(lambda: again.committed() == 20)
    ((value, headers),) = again.cluster.letters
    assert value == b""
    assert headers["reason"] == "kafka_deleted"
    assert (headers["offset_start"], headers["offset_stop"]) == ("5", "12")
    assert len(again.cluster.metadata) == 1
    (lost,) = cast("list[dict[str, object]]", again.health.report()[1]["lost"])
    assert (lost["partition"], lost["start"], lost["stop"]) == (0, 5, 12)
    assert again.metrics.lost._value.get() == 7


def end_of_partition(offset: int) -> Message:
    error = KafkaError(KafkaError._PARTITION_EOF)
    return Message(topic=TOPIC, partition=0, offset=offset, error=error)


def test_an_emptied_partition_is_reported_and_committed(world: World) -> None:
    world.cluster.committed_offsets[0] = 5
    world.cluster.first = 12
    world.cluster.fetched.append(end_of_partition(12))
    world.run(lambda: world.committed() == 12)
    ((_, headers),) = world.cluster.letters
    assert (headers["offset_start"], headers["offset_stop"]) == ("5", "12")


def test_offsets_without_readings_are_committed(world: World) -> None:
    world.cluster.fetched += [raw_message(0), end_of_partition(3)]
    world.run(lambda: world.committed() == 3)
    assert world.cluster.letters == []


def test_records_after_the_end_of_a_partition_are_not_losses(world: World) -> None:
    world.cluster.fetched += [raw_message(0), end_of_partition(1), raw_message(1), raw_message(2)]
    world.run(lambda: world.committed() == 3)
    assert world.cluster.letters == []
    assert world.database.fuel == [0, 1, 2]


def test_revoked_partitions_are_flushed_and_lost_ones_dropped(world: World) -> None:
    sink = world.sink()
    sink._consumer.subscribe([TOPIC], on_assign=sink._assigned)
    world.cluster.fetched += [raw_message(offset) for offset in range(3)]
    while not sink._open:
        sink._turn()
    world.database.away = False
    sink._revoked(cast("Any", world.cluster), world.cluster.assignment())
    assert world.committed() == 3
    world.cluster.poll()
    sink._assigned(cast("Any", world.cluster), world.cluster.assignment())
    world.cluster.fetched += [raw_message(offset) for offset in range(3, 6)]
    while not sink._open:
        sink._turn()
    sink._lost(cast("Any", world.cluster), world.cluster.assignment())
    sink._drain()
    assert world.committed() == 3


@pytest.mark.parametrize("away", [False, True])
def test_a_fatal_error_of_the_consumer_ends_the_sink(world: World, *, away: bool) -> None:
    """The sink ends even while a write waits for InfluxDB."""
    world.database.away = away
    world.cluster.fetched += [raw_message(offset) for offset in range(5)]
    sink = world.sink()
    for _ in range(20):
        if not sink._writes:
            sink._consumer.subscribe([TOPIC], on_assign=sink._assigned)
            sink._turn()
    world.fatal(KafkaError(KafkaError.FENCED_INSTANCE_ID, "another sink has this id", True))
    with pytest.raises(FatalError, match="another sink has this id"):
        sink.run()
    sink._writes.close()
    assert not world.cluster.closed


def test_a_fatal_error_of_the_producer_ends_the_sink(world: World) -> None:
    code = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    world.cluster.letter_error = KafkaError(code)
    world.cluster.fatal = KafkaError(code, "the producer's state is lost", True)
    world.cluster.fetched.append(raw_message(0, BAD))
    with pytest.raises(FatalError, match="state is lost"):
        world.sink().run()
    assert world.committed() == 0
