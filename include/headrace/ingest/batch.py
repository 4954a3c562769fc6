"""Collects readings in batches and decides when to write them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from confluent_kafka import Message

from headrace.ingest.reading_store import ReadingBatch, ReadingStore
from headrace.models.deadletter import RejectedReadingError, Rejection
from headrace.models.event_time import TIME_HEADER, event_time
from headrace.models.lost import LostRecords
from headrace.storage.kafka import Record, headers_of

__all__ = ["Batch", "OpenBatches"]

#: A batch with this many payload bytes is full, regardless of its number of readings.
_BATCH_BYTES = 4 << 20
#: Limit on all open batches together, as a number of full batches.
_OPEN_BATCHES = 2
#: Number of records whose headers are read together.
_AT_ONCE = 100
#: Digits of a time in nanoseconds until the year 2286; `event_time` handles others.
_MAX_DIGITS = 19


class Batch:
    """Readings of one partition that are written together, and their offsets.

    Their records are not kept. If the store refuses a reading, it is read from Kafka again, which
    is rare and costs less memory than keeping all records.

    Parameters
    ----------
    partition
        The partition.
    start
        Offset of the first record.
    readings
        An empty batch of the store.

    Attributes
    ----------
    stop
        One past the last record in the batch, including skipped ones.
    rejected
        Records whose reading can't be stored.
    lost
        Records before the batch that Kafka deleted unread.
    payload_bytes
        Length of the payloads.
    begun
        Creation time, on the monotonic clock.
    """

    def __init__(self, partition: int, start: int, readings: ReadingBatch) -> None:
        self.partition = partition
        self.start = self.stop = start
        self.readings = readings
        self.rejected: list[tuple[Record, Rejection]] = []
        self.lost: list[LostRecords] = []
        self.payload_bytes = 0
        self.begun = time.monotonic()
        # Runs of readings with consecutive offsets, each as index and offset of its first reading.
        # Storing every offset would cost time and memory.
        self._indices: list[int] = []
        self._offsets: list[int] = []

    def __len__(self) -> int:
        """Number of records."""
        return len(self.readings) + len(self.rejected)

    def extend(self, messages: Sequence[Message]) -> None:
        """Add records of the partition in order."""
        for begin in range(0, len(messages), _AT_ONCE):
            some = messages[begin : begin + _AT_ONCE]
            times = _header_times(some)
            if times is not None:
                self._add(some, times)
            else:
                self._add_dated(some)
        self.payload_bytes += sum(map(len, messages))
        self.stop = (messages[-1].offset() or 0) + 1

    def offset_of(self, index: int) -> int:
        """Return the offset of a reading by its index in the batch."""
        run = bisect_right(self._indices, index) - 1
        return self._offsets[run] + index - self._indices[run]

    def _add_dated(self, messages: Iterable[Message]) -> None:
        """Add records whose headers are unusual."""
        dated: list[Message] = []
        times: list[bytes] = []
        undated: list[tuple[Record, Rejection]] = []
        for message in messages:
            try:
                header = headers_of(message).get(TIME_HEADER)
                times.append(event_time(header, message.timestamp()[1]))
                dated.append(message)
            except RejectedReadingError as exc:
                undated.append((Record.of(message), exc.rejection))
        first = len(self.rejected)
        self.rejected += undated
        if dated:
            self._add(dated, times)
        self.rejected[first:] = sorted(self.rejected[first:], key=lambda item: item[0].offset)

    def _add(self, messages: Sequence[Message], times: Sequence[bytes]) -> None:
        index = len(self.readings)
        payloads = [message.value() or b"" for message in messages]
        rejected = self.readings.add(payloads, times)
        first, last = messages[0].offset() or 0, messages[-1].offset() or 0
        if not rejected and last - first == len(messages) - 1:
            self._note(index, first)
            return
        for number, message in enumerate(messages):
            if number in rejected:
                self.rejected.append((Record.of(message), rejected[number]))
            else:
                self._note(index, message.offset() or 0)
                index += 1

    def _note(self, index: int, offset: int) -> None:
        """Record that readings from an index have consecutive offsets from this one."""
        if self._indices and self.offset_of(index) == offset:
            return
        self._indices.append(index)
        self._offsets.append(offset)


def _header_times(messages: Iterable[Message]) -> tuple[bytes, ...] | None:
    """Return the event times of records if all have it as the first header, like the bridge's."""
    headers = [message.headers() for message in messages]
    if not all(headers):
        return None
    # Checking only the first header avoids a dictionary for each reading.
    first: list[tuple[str, bytes]] = [some[0] for some in headers]  # type: ignore[index, misc]
    names, times = zip(*first, strict=True)
    plain = (
        set(names) == {TIME_HEADER}
        and all(times)
        and b"".join(times).isdigit()
        and max(map(len, times)) <= _MAX_DIGITS
    )
    return times if plain else None


class OpenBatches:
    """Open batches, one per partition.

    InfluxDB writes many readings of few devices faster than as many readings of many
    devices, and all readings of a device are in one partition.

    Parameters
    ----------
    store
        Creates the batches of readings.
    limit
        Maximum number of readings in a write.
    linger_seconds
        Maximum time that a batch stays open.
    """

    def __init__(self, store: ReadingStore[Any], limit: int, linger_seconds: float) -> None:
        self._store = store
        self._limit = limit
        self._linger_seconds = linger_seconds
        self._batches: dict[int, Batch] = {}

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches.values())

    @property
    def room(self) -> int:
        """Return the number of records that fit before a batch is full."""
        return self._limit - max(map(len, self), default=0)

    def add(self, messages: Iterable[Message]) -> None:
        """Add each record to the batch of its partition."""
        for partition, run in groupby(messages, Message.partition):
            records = list(run)
            self._batch(partition or 0, records[0].offset() or 0).extend(records)

    def reached(self, partition: int, offset: int) -> None:
        """Record that everything in a partition before this offset was read."""
        self._batch(partition, offset).stop = offset

    def lost(self, records: LostRecords) -> None:
        """Add records that Kafka deleted, which are reported with the next batch."""
        self._batch(records.partition, records.stop).lost.append(records)

    def full(self) -> Batch | None:
        """Return the batch that must be written before records are added, if any."""
        if not self._batches:
            return None
        by_records = max(self, key=len)
        by_bytes = max(self, key=lambda batch: batch.payload_bytes)
        if len(by_records) >= self._limit:
            return by_records
        if by_bytes.payload_bytes >= _BATCH_BYTES:
            return by_bytes
        if sum(map(len, self)) >= _OPEN_BATCHES * self._limit:
            return by_records
        if sum(batch.payload_bytes for batch in self) >= _OPEN_BATCHES * _BATCH_BYTES:
            return by_bytes
        return None

    def take_due(self) -> list[Batch]:
        """Remove and return the batches to write now: a full one, or all old ones together."""
        full = self.full()
        if full is not None:
            return self._take([full])
        begun = time.monotonic() - self._linger_seconds
        if any(batch.begun <= begun for batch in self):
            return self.take()
        return []

    def take(self) -> list[Batch]:
        """Remove and return the oldest batches that fit into one write."""
        taken: list[Batch] = []
        readings = 0
        for batch in sorted(self, key=lambda batch: batch.begun):
            readings += len(batch)
            if taken and readings > self._limit:
                break
            taken.append(batch)
        return self._take(taken)

    def drop(self, partitions: Iterable[int]) -> None:
        """Discard the batches of some partitions."""
        for partition in partitions:
            self._batches.pop(partition, None)

    def _batch(self, partition: int, offset: int) -> Batch:
        batch = self._batches.get(partition)
        if batch is None:
            batch = self._batches[partition] = Batch(partition, offset, self._store.new_batch())
        return batch

    def _take(self, batches: list[Batch]) -> list[Batch]:
        for batch in batches:
            del self._batches[batch.partition]
        return batches
