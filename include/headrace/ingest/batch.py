"""Batches of readings that are written together, and when it is time to write them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from confluent_kafka import Message

from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.reading import ReadingCodec
from headrace.storage.kafka import Record, headers_of

__all__ = ["Batch", "OpenBatches", "event_time"]

_TIME_NS = "time_ns"
#: Payload bytes after which a batch is full, however few readings it holds.
_BATCH_BYTES = 4 << 20
#: All open batches together hold no more than so many full ones.
_OPEN_BATCHES = 2
#: Records whose lines are made together. If one of them is unusual, so many are tried, and of
#: those that have it each is looked at alone.
_AT_ONCE = 100
_FEW = 10


def event_time(header: bytes | None, timestamp_ms: int) -> bytes:
    """Time of a raw record's reading, in nanoseconds since the epoch, as decimal text.

    Parameters
    ----------
    header
        The record's ``time_ns``; `None` if no bridge wrote it. Then Kafka's own timestamp
        is what there is.
    timestamp_ms
        Kafka's timestamp.

    Raises
    ------
    RejectedReadingError
        If the header is no number.
    """
    if header is None:
        return b"%d" % (timestamp_ms * 1_000_000)
    if not header.isdigit():
        raise RejectedReadingError(Reason.TIME_INVALID, f"header time_ns is {header[:50]!r}")
    return header


class Batch:
    """Readings of one partition that are written together, and the offsets behind them.

    Only their lines are kept: a reading that InfluxDB refuses is read from Kafka again,
    which is rare, and costs less than to hold on to all of them.

    Attributes
    ----------
    partition
        The partition.
    start
        Offset of the first record.
    stop
        One past the last record that is in the batch or was passed over.
    lines
        Line protocol, one line a reading.
    rejected
        Records that hold no reading that can be stored.
    payload_bytes
        Length of the payloads.
    begun
        When the batch was begun, on the monotonic clock.
    """

    def __init__(self, partition: int, start: int) -> None:
        self.partition = partition
        self.start = self.stop = start
        self.lines: list[bytes] = []
        self.rejected: list[tuple[Record, RejectedReadingError]] = []
        self.payload_bytes = 0
        self.begun = time.monotonic()

    def __len__(self) -> int:
        """How many records it holds."""
        return len(self.lines) + len(self.rejected)

    def extend(self, messages: Sequence[Message], codec: ReadingCodec) -> None:
        """Add records of the partition, in their order."""
        self._add(messages, codec, _AT_ONCE)
        self.payload_bytes += sum(map(len, messages))
        self.stop = (messages[-1].offset() or 0) + 1

    def _add(self, messages: Sequence[Message], codec: ReadingCodec, at_once: int) -> None:
        for begin in range(0, len(messages), at_once):
            some = messages[begin : begin + at_once]
            times = _header_times(some)
            lines = (
                codec.lines([message.value() or b"" for message in some], times) if times else None
            )
            if lines is not None:
                self.lines += lines
            elif at_once > _FEW:
                # An unusual one among them: most of the others still go together.
                self._add(some, codec, _FEW)
            else:
                self._add_each(some, codec)

    def _add_each(self, messages: Iterable[Message], codec: ReadingCodec) -> None:
        for message in messages:
            try:
                header = headers_of(message).get(_TIME_NS)
                time_ns = event_time(header, message.timestamp()[1])
                self.lines.append(codec.line(message.value() or b"", time_ns))
            except RejectedReadingError as exc:
                self.rejected.append((Record.of(message), exc))


def _header_times(messages: Iterable[Message]) -> tuple[bytes, ...] | None:
    """`event_time` of records, if all of them have it first, as the bridge puts it."""
    headers = [message.headers() for message in messages]
    if not all(headers):
        return None
    # To look no further saves a dictionary a reading.
    first: list[tuple[str, bytes]] = [some[0] for some in headers]  # type: ignore[index, misc]
    names, times = zip(*first, strict=True)
    usual = set(names) == {_TIME_NS} and all(times) and b"".join(times).isdigit()
    return times if usual else None


class OpenBatches:
    """Batches that are being filled, one a partition.

    A write of few devices costs InfluxDB less than one of as many readings of many devices,
    and a device has one partition.

    Parameters
    ----------
    codec
        Writes readings as lines.
    limit
        A write has so many readings at most.
    linger_seconds
        A batch is not kept longer.
    """

    def __init__(self, codec: ReadingCodec, limit: int, linger_seconds: float) -> None:
        self._codec = codec
        self._limit = limit
        self._linger_seconds = linger_seconds
        self._batches: dict[int, Batch] = {}

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches.values())

    @property
    def room(self) -> int:
        """How many records may be added before a batch has too many."""
        return self._limit - max(map(len, self), default=0)

    def add(self, messages: Iterable[Message]) -> None:
        """Add records, each to the batch of its partition."""
        for partition, run in groupby(messages, Message.partition):
            records = list(run)
            self._batch(partition or 0, records[0].offset() or 0).extend(records, self._codec)

    def reached(self, partition: int, offset: int) -> None:
        """Note that a partition holds nothing before this offset that is not read."""
        self._batch(partition, offset).stop = offset

    def full(self) -> Batch | None:
        """The batch that has to be written before more is added, if there is one."""
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
        """Take what should be written now: a full batch, or old ones together."""
        full = self.full()
        if full is not None:
            return self._take([full])
        begun = time.monotonic() - self._linger_seconds
        if any(batch.begun <= begun for batch in self):
            return self.take()
        return []

    def take(self) -> list[Batch]:
        """Take the oldest batches, as many as go into one write."""
        taken: list[Batch] = []
        readings = 0
        for batch in sorted(self, key=lambda batch: batch.begun):
            readings += len(batch)
            if taken and readings > self._limit:
                break
            taken.append(batch)
        return self._take(taken)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the batches of some partitions."""
        for partition in partitions:
            self._batches.pop(partition, None)

    def _batch(self, partition: int, offset: int) -> Batch:
        batch = self._batches.get(partition)
        if batch is None:
            batch = self._batches[partition] = Batch(partition, offset)
        return batch

    def _take(self, batches: list[Batch]) -> list[Batch]:
        for batch in batches:
            del self._batches[batch.partition]
        return batches
