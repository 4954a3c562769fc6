"""Writes batches to InfluxDB so that one bad reading affects no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from headrace.errors import HeadraceError, RefusedError
from headrace.ingest.batch import Batch
from headrace.ingest.dead_letters import Rejected, Unstored, until_it_works
from headrace.ingest.health import Health
from headrace.models.deadletter import Reason, RejectedReadingError, Rejection
from headrace.models.event_time import TIME_HEADER, event_time
from headrace.models.lost import LostRecords
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.influx import Influx
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic

__all__ = ["BatchWriter", "write_halving"]

_DETAIL_CHARACTERS = 500
#: Fetch buffer for the records of a batch that are read again.
_READ_KILOBYTES = 1024


def write_halving(
    write: Callable[[bytes], None], lines: Sequence[bytes]
) -> dict[int, RefusedError]:
    """Write all lines except those that InfluxDB refuses.

    A refusal names one point, or none. So the lines are halved until each refused line is
    alone. Lines that are written twice on the way become the same point.

    Parameters
    ----------
    write
        Writes lines, and raises `RefusedError` if InfluxDB refuses some or all of them.
    lines
        Line protocol.

    Returns
    -------
    dict
        InfluxDB's reason by the index of the refused line.
    """
    refused: dict[int, RefusedError] = {}
    # Ranges still to be written. A recursive inner function would keep the lines in a
    # reference cycle, and so in memory until the next garbage collection.
    ranges = [(0, len(lines))] if lines else []
    while ranges:
        start, stop = ranges.pop()
        try:
            write(b"\n".join(lines[start:stop]))
        except RefusedError as exc:
            if stop - start == 1:
                # Its traceback holds this frame, and so all the lines.
                refused[start] = exc.with_traceback(None)
            else:
                middle = (start + stop) // 2
                ranges += [(middle, stop), (start, middle)]
    return refused


class BatchWriter:
    """Writes batches to InfluxDB.

    Thread-safe: several writes may run at once.

    Parameters
    ----------
    influx
        InfluxDB.
    kafka
        Kafka, to read refused readings again.
    profile
        The kind of device.
    codec
        The codec that made the lines.
    health
        Where the sink reports.
    """

    def __init__(
        self,
        influx: Influx,
        kafka: Kafka,
        profile: Profile,
        codec: ReadingCodec,
        health: Health,
    ) -> None:
        self._influx = influx
        self._kafka = kafka
        self._bucket = profile.buckets.raw
        self._topic = profile.topics.raw
        self._codec = codec
        self._health = health
        self._given_up = threading.Event()
        # A refused line is never accepted.
        self._influx_attempts = until_it_works(health, "influxdb", self._given_up, RefusedError)
        self._kafka_attempts = until_it_works(health, "kafka", self._given_up, RefusedError)

    def write(self, batches: Sequence[Batch]) -> Unstored:
        """Write batches together, however long it takes.

        An unavailable InfluxDB, a wrong token, a missing bucket and a full disk are not
        caused by a reading. The write waits until the problem is fixed.

        Returns
        -------
        Unstored
            What `headrace.ingest.dead_letters.DeadLetters` has to send.

        Raises
        ------
        HeadraceError
            If `give_up` was called before InfluxDB took the batches.
        """
        lines = [line for batch in batches for line in batch.lines]
        refused = write_halving(lambda some: self._influx_attempts(self._write_lines, some), lines)
        rejected = [item for batch in batches for item in batch.rejected]
        lost = [item for batch in batches for item in batch.lost]
        if refused:
            errors = {lines[number]: error for number, error in refused.items()}
            found, gone = self._kafka_attempts(self._read_refused, batches, errors)
            rejected += found
            lost += gone
        return Unstored(len(lines) - len(refused), rejected, lost)

    def check(self) -> None:
        """Check whether InfluxDB answers while there is nothing to write."""
        try:
            self._influx.ping()
        except HeadraceError as exc:
            self._health.problem("influxdb", str(exc))
        else:
            self._health.fine("influxdb")

    def give_up(self) -> None:
        """Make waiting writes end with an error."""
        self._given_up.set()

    def close(self) -> None:
        """Close the connection."""
        self._influx.close()

    def _write_lines(self, lines: bytes) -> None:
        self._influx.write(self._bucket, lines)
        self._health.fine("influxdb")

    def _read_refused(
        self, batches: Sequence[Batch], refused: Mapping[bytes, RefusedError]
    ) -> tuple[list[Rejected], list[LostRecords]]:
        """Read the records of refused lines from Kafka again.

        Returns
        -------
        tuple
            The records, and the ranges of those that Kafka no longer has.
        """
        found: list[Rejected] = []
        lost: list[LostRecords] = []
        for batch in batches:
            missing = refused.keys() & set(batch.lines)
            if not missing:
                continue
            place = batch.partition
            for record in read_topic(
                self._kafka,
                self._topic,
                {place: batch.start},
                {place: batch.stop},
                buffer_kilobytes=_READ_KILOBYTES,
            ):
                line = self._line(record)
                if line in refused:
                    rejection = Rejection(Reason.INFLUX_REFUSED, str(refused[line]))
                    found.append((record, rejection))
                    missing.discard(line)
            if missing:
                one = min(missing)
                detail = (
                    f"InfluxDB refused {len(missing)} readings, and Kafka deleted their records "
                    f"before the sink could read them again. One of them: "
                    f"{one.decode('utf-8', 'replace')}: {refused[one]}"
                )
                lost.append(
                    LostRecords(
                        self._topic, place, batch.start, batch.stop, detail[:_DETAIL_CHARACTERS]
                    )
                )
        return found, lost

    def _line(self, record: Record) -> bytes:
        """Return the line of a record; empty if it has none."""
        try:
            time_ns = event_time(record.headers.get(TIME_HEADER), record.timestamp_ms)
            return self._codec.line(record.value, time_ns)
        except RejectedReadingError:
            return b""
