"""The sink's pending writes and the order of their commits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from headrace.ingest.batch import Batch
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.dead_letters import DeadLetters, Unstored

__all__ = ["Writes"]

#: Maximum number of writes that wait for dead letters, and maximum memory of these dead letters.
#: Beyond either limit, the sink fetches nothing more.
_MOST_WAITING = 1000
_MOST_WAITING_BYTES = 16 << 20


@dataclass(eq=False)
class _Write:
    """A write to InfluxDB, and then to the dead-letter topic.

    Parameters
    ----------
    stops
        Offsets to commit after this write, by partition.
    readings
        Number of records.
    stored
        The write to InfluxDB.
    sent
        Sending of the dead letters after the write, if there are any.
    """

    stops: dict[int, int]
    readings: int
    stored: Future[Unstored]
    sent: Future[None] | None = None

    @property
    def pending(self) -> Future[Any]:
        """The step that this write waits for."""
        return self.stored if self.sent is None else self.sent


class Writes:
    """Writes batches in the background.

    Several batches are written to InfluxDB at once. Dead letters are sent in order of the writes
    while newer batches are written. So a problem of the dead-letter topic delays only the
    commits, up to a limit.

    Parameters
    ----------
    writer
        Writes batches to InfluxDB.
    dead_letters
        Receives records that can't be stored.
    at_once
        Maximum number of concurrent writes to InfluxDB.
    """

    def __init__(self, writer: BatchWriter, dead_letters: DeadLetters, at_once: int) -> None:
        self._writer = writer
        self._dead_letters = dead_letters
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="write")
        self._letter_pool = ThreadPoolExecutor(1, thread_name_prefix="dead-letter")
        self._under_way: deque[_Write] = deque()

    def __len__(self) -> int:
        """Return the number of unfinished writes."""
        return len(self._under_way)

    @property
    def readings(self) -> int:
        """Number of records in unfinished writes."""
        return sum(write.readings for write in self._under_way)

    def has_room(self) -> bool:
        """Return whether another write can start."""
        self._send_dead_letters()
        writing = waiting_bytes = 0
        for write in self._under_way:
            if not write.stored.done():
                writing += 1
            elif write.sent is not None and not write.sent.done():
                waiting_bytes += write.stored.result().payload_bytes
        return (
            writing < self._at_once
            and len(self._under_way) < _MOST_WAITING
            and waiting_bytes < _MOST_WAITING_BYTES
        )

    def submit(self, batches: list[Batch]) -> None:
        """Start to write batches together."""
        stops = {batch.partition: batch.stop for batch in batches}
        readings = sum(map(len, batches))
        # A separate tuple, so that nothing here keeps the lines after the write.
        stored = self._pool.submit(self._writer.write, tuple(batches))
        self._under_way.append(_Write(stops, readings, stored))

    def finished(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Remove finished writes, the oldest first, up to the first unfinished one.

        Yields
        ------
        tuple
            Number of readings that InfluxDB accepted, and the offsets to commit by partition.

        Raises
        ------
        FatalError
            If dead letters can't be sent by this process.
        """
        self._send_dead_letters()
        while self._under_way and self._under_way[0].pending.done():
            write = self._under_way[0]
            readings = write.stored.result().readings
            if write.sent is not None:
                write.sent.result()
            self._under_way.popleft()
            yield readings, write.stops

    def wait(self, seconds: float) -> None:
        """Wait for a change, at most this long."""
        pending = [write.pending for write in self._under_way if not write.pending.done()]
        if pending:
            wait(pending, seconds, FIRST_COMPLETED)

    def drop(self, partitions: Iterable[int]) -> None:
        """Do not commit these partitions."""
        for write in self._under_way:
            for partition in partitions:
                write.stops.pop(partition, None)

    def give_up(self) -> None:
        """Drop unfinished writes; make writes that wait for a server raise their error."""
        # Leaving the group revokes the partitions, which would finish these writes.
        self._under_way.clear()
        self._writer.give_up()
        self._dead_letters.give_up()

    def close(self) -> None:
        """Stop the threads, after `give_up`."""
        self._pool.shutdown(wait=True)
        self._letter_pool.shutdown(wait=True)
        self._dead_letters.close()

    def _send_dead_letters(self) -> None:
        for write in self._under_way:
            if write.sent is None and write.stored.done():
                unstored = write.stored.result()
                if unstored:
                    write.sent = self._letter_pool.submit(self._dead_letters.send, unstored)
