"""What is done about readings that the store refuses, with a store that refuses by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Message

from headrace.ingest.batch import OpenBatches
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.health import Health
from headrace.ingest.reading_store import Refused
from headrace.models.deadletter import Reason, Rejection
from headrace.profile import Profile
from headrace.storage.kafka import Record
from tests.support.sink_world import raw_message


@dataclass
class Numbers:
    """A batch that only counts."""

    readings: int = 0

    def __len__(self) -> int:
        return self.readings

    def add(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> dict[int, Rejection]:
        assert len(payloads) == len(times_ns)
        self.readings += len(payloads)
        return {}


@dataclass
class StoreThatRefusesByNumber:
    """Refuses the readings with these indices in every batch, and never looks at one."""

    refused: tuple[int, ...]

    def new_batch(self) -> Numbers:
        return Numbers()

    def write(self, batches: Sequence[Numbers]) -> list[dict[int, Refused]]:
        return [
            {
                index: Refused("conflict", f"reading {index}")
                for index in self.refused
                if index < len(batch)
            }
            for batch in batches
        ]

    def check(self) -> None:
        """It is there."""

    def give_up(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Topic:
    """The raw topic, which holds some of its records and notes what is read of it."""

    held: list[Message] = field(default_factory=list)
    asked: list[tuple[dict[int, int], dict[int, int]]] = field(default_factory=list)

    def read(
        self, _: object, topic: str, start: dict[int, int], stop: dict[int, int], **__: Any
    ) -> Iterator[Record]:
        assert topic
        self.asked.append((start, stop))
        for message in self.held:
            partition = message.partition() or 0
            if start.get(partition, 0) <= (message.offset() or 0) < stop.get(partition, 0):
                yield Record.of(message)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    made = Topic()
    monkeypatch.setattr("headrace.ingest.batch_writer.read_topic", made.read)
    return made


def written(profile: Profile, store: StoreThatRefusesByNumber, *messages: Message) -> Any:
    writer = BatchWriter(store, cast("Any", None), profile, Health("sink", ["kafka", "influxdb"]))
    batches = OpenBatches(store, 1000, 0)
    batches.add(messages)
    return writer.write(batches.take())


def test_only_what_was_refused_is_read_again(profile: Profile, topic: Topic) -> None:
    """By its offset: the payload need not look like what the store made of it."""
    topic.held = [raw_message(offset, b"anything", part) for part in (0, 1) for offset in range(50)]
    store = StoreThatRefusesByNumber((3, 5, 30))
    some = [raw_message(offset, None, 0) for offset in range(10, 20)]
    others = [raw_message(offset, None, 1) for offset in range(2)]
    unstored = written(profile, store, *some, *others)
    assert unstored.readings == 10
    assert [(record.offset, why.reason, why.detail) for record, why in unstored.rejected] == [
        (13, Reason.INFLUX_REFUSED, "conflict"),
        (15, Reason.INFLUX_REFUSED, "conflict"),
    ]
    assert unstored.lost == []
    assert topic.asked == [({0: 13}, {0: 16})]


def test_refused_readings_that_kafka_deleted_are_lost_with_their_offsets(
    profile: Profile, topic: Topic
) -> None:
    topic.held = [raw_message(offset) for offset in range(16, 20)]
    store = StoreThatRefusesByNumber((1, 5, 8))
    unstored = written(profile, store, *(raw_message(offset) for offset in range(10, 20)))
    assert [record.offset for record, _ in unstored.rejected] == [18]
    (lost,) = unstored.lost
    assert (lost.partition, lost.start, lost.stop) == (0, 11, 16)
    assert "refused 2 readings" in lost.detail
    assert "reading 1: conflict" in lost.detail


def test_nothing_is_read_if_nothing_is_refused(profile: Profile, topic: Topic) -> None:
    unstored = written(profile, StoreThatRefusesByNumber(()), raw_message(0), raw_message(1))
    assert unstored.readings == 2
    assert not unstored
    assert topic.asked == []
