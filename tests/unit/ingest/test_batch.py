"""Which readings are written together, and when."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from confluent_kafka import Message

from headrace.ingest.batch import Batch, OpenBatches
from headrace.models.deadletter import Reason
from headrace.storage.influx_readings import InfluxReadingStore
from headrace.storage.reading_lines import LineBatch
from tests.support.devices import reading

STAMP = ("time_ns", b"1700000000000000001")


def message(
    partition: int, offset: int, value: bytes | None = None, headers: Any = (STAMP,)
) -> Message:
    payload = json.dumps(reading(f"generator{partition}", fuel=offset)).encode()
    return Message(
        topic="kafka_raw",
        partition=partition,
        offset=offset,
        key=b"generator",
        value=payload if value is None else value,
        headers=list(headers),
        timestamp=(1, 1_700_000_000_000),
    )


def filled(batches: OpenBatches, **counts: int) -> OpenBatches:
    """Fill batches with this number of readings of partitions p0, p1, ... from offset 0."""
    for name, count in counts.items():
        batches.add([message(int(name[1:]), offset) for offset in range(count)])
    return batches


def lines_of(batch: Batch) -> list[bytes]:
    """What the store would write of a batch."""
    return cast("LineBatch", batch.readings).lines


def held(batches: list[Batch]) -> list[tuple[int, int]]:
    """Return partition and size of each batch."""
    return [(batch.partition, len(batch)) for batch in batches]


def test_each_partition_has_its_own_batch(unconnected_store: InfluxReadingStore) -> None:
    batches = OpenBatches(unconnected_store, 100, 60)
    batches.add([message(1, 7), message(1, 8), message(0, 3), message(1, 9)])
    assert {(item.partition, item.start, item.stop) for item in batches} == {(1, 7, 10), (0, 3, 4)}
    (one,) = (item for item in batches if item.partition == 1)
    assert [line.rpartition(b"fuel=")[2] for line in lines_of(one)] == [
        b"7 1700000000000000001",
        b"8 1700000000000000001",
        b"9 1700000000000000001",
    ]


def test_a_full_batch_is_written_alone(unconnected_store: InfluxReadingStore) -> None:
    batches = filled(OpenBatches(unconnected_store, 5, 60), p0=3, p1=4)
    assert batches.take_due() == []
    assert batches.room == 1
    batches.add([message(1, 4)])
    assert batches.full() is not None
    assert held(batches.take_due()) == [(1, 5)]
    assert held(list(batches)) == [(0, 3)]


def test_many_partitions_buffer_at_most_two_full_batches(
    unconnected_store: InfluxReadingStore,
) -> None:
    batches = filled(OpenBatches(unconnected_store, 5, 60), p0=2, p1=2, p2=3, p3=2)
    assert batches.full() is None
    batches.add([message(0, 2)])
    # The first of the largest batches is written.
    assert held(batches.take_due()) == [(0, 3)]
    assert batches.full() is None


def test_few_large_payloads_fill_a_batch(unconnected_store: InfluxReadingStore) -> None:
    batches = OpenBatches(unconnected_store, 100, 60)
    large = json.dumps(reading("generator0", note="x" * 3_000_000)).encode()
    batches.add([message(0, 0, large)])
    assert batches.full() is None
    batches.add([message(0, 1, large)])
    assert held(batches.take_due()) == [(0, 2)]


def test_old_batches_are_written_together(unconnected_store: InfluxReadingStore) -> None:
    """A slow fleet needs one write, however many partitions it uses."""
    batches = filled(OpenBatches(unconnected_store, 5, 0), p0=1, p1=2, p2=1)
    assert held(batches.take_due()) == [(0, 1), (1, 2), (2, 1)]
    assert not batches


def test_no_write_is_larger_than_the_limit(unconnected_store: InfluxReadingStore) -> None:
    batches = filled(OpenBatches(unconnected_store, 5, 0), p0=4, p1=2, p2=3)
    assert held(batches.take_due()) == [(0, 4)]
    assert held(batches.take_due()) == [(1, 2), (2, 3)]


def test_rejected_readings_count_towards_the_limit(unconnected_store: InfluxReadingStore) -> None:
    """Otherwise a flood of rejected readings would fill the memory."""
    batches = OpenBatches(unconnected_store, 3, 60)
    batches.add([message(0, offset, b"rubbish") for offset in range(3)])
    (batch,) = batches.take_due()
    assert (lines_of(batch), batch.stop) == ([], 3)
    assert [(record.offset, error.reason) for record, error in batch.rejected] == [
        (offset, Reason.NOT_JSON) for offset in range(3)
    ]


def test_an_unusual_reading_does_not_hold_back_others(
    unconnected_store: InfluxReadingStore,
) -> None:
    """Lines are encoded a hundred at a time; order and offsets are kept."""
    batches = OpenBatches(unconnected_store, 1000, 60)
    odd: dict[int, dict[str, Any]] = {
        120: {"value": b"rubbish"},
        130: {"headers": [("time_ns", b"soon")]},
        140: {"headers": []},
        199: {"value": json.dumps(reading("generator0", note=1, fuel=199)).encode()},
    }
    batches.add([message(0, offset, **odd.get(offset, {})) for offset in range(250)])
    (batch,) = batches
    assert [record.offset for record, _ in batch.rejected] == [120, 130]
    written = [float(line.rpartition(b" ")[0].rpartition(b"fuel=")[2]) for line in lines_of(batch)]
    assert written == [offset for offset in range(250) if offset not in {120, 130}]
    assert lines_of(batch)[138].endswith(b" 1700000000000000000")
    assert (batch.start, batch.stop) == (0, 250)


def test_the_end_of_a_partition_advances_the_offset(unconnected_store: InfluxReadingStore) -> None:
    batches = filled(OpenBatches(unconnected_store, 5, 0), p0=2)
    batches.reached(0, 4)
    batches.reached(1, 9)
    assert [(item.partition, item.stop, len(item)) for item in batches.take_due()] == [
        (0, 4, 2),
        (1, 9, 0),
    ]


def test_revoked_partitions_are_dropped(unconnected_store: InfluxReadingStore) -> None:
    batches = filled(OpenBatches(unconnected_store, 5, 0), p0=2, p1=1)
    batches.drop([0, 7])
    assert held(batches.take_due()) == [(1, 1)]


@pytest.mark.parametrize(
    ("headers", "time_ns"),
    [
        ([STAMP, ("topic", b"a/b")], b"1700000000000000001"),
        ([("topic", b"a/b"), STAMP], b"1700000000000000001"),
        ([("topic", b"a/b")], b"1700000000000000000"),
        ([], b"1700000000000000000"),
    ],
)
def test_event_time_comes_from_the_header_or_from_kafka(
    unconnected_store: InfluxReadingStore, headers: list[tuple[str, bytes]], time_ns: bytes
) -> None:
    batches = OpenBatches(unconnected_store, 5, 0)
    batches.add([message(0, 0, headers=headers)])
    (batch,) = batches.take_due()
    assert lines_of(batch)[0].rpartition(b" ")[2] == time_ns


@pytest.mark.parametrize("value", [b"", b"soon", b"-5", b"1e3", None])
def test_a_header_without_a_valid_time_is_rejected(
    unconnected_store: InfluxReadingStore, value: bytes | None
) -> None:
    batches = OpenBatches(unconnected_store, 5, 0)
    batches.add([message(0, 0, headers=[("time_ns", value)])])
    (batch,) = batches.take_due()
    assert [error.reason for _, error in batch.rejected] == [Reason.TIME_INVALID]


def test_the_offset_of_every_reading_is_known(unconnected_store: InfluxReadingStore) -> None:
    """Transaction markers leave gaps, and rejected records are no readings."""
    offsets = [*range(250), 255, 256, 260, *range(300, 420)]
    unusual: dict[int, dict[str, Any]] = {
        3: {"value": b"rubbish"},
        130: {"headers": [("time_ns", b"soon")]},
        131: {"headers": []},
        256: {"value": b"{}"},
        310: {"value": json.dumps(reading("generator0", note=1, fuel=310)).encode()},
    }
    batches = OpenBatches(unconnected_store, 1000, 60)
    for begin, stop in ((0, 120), (120, len(offsets))):
        batches.add([message(0, item, **unusual.get(item, {})) for item in offsets[begin:stop]])
    (batch,) = batches
    kept = [item for item in offsets if item not in {3, 130, 256}]
    assert [batch.offset_of(index) for index in range(len(batch.readings))] == kept
    fuel = [line.rpartition(b" ")[0].rpartition(b"fuel=")[2] for line in lines_of(batch)]
    assert [float(value) for value in fuel] == kept
    assert [record.offset for record, _ in batch.rejected] == [3, 130, 256]
