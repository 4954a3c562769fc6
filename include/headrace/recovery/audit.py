"""Counts the raw records of a range of event time, and what became of each."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from headrace.models.device_time import epoch_ns
from headrace.models.lost import LostRecords, merged
from headrace.models.window import rfc3339
from headrace.profile import Profile
from headrace.recovery.letters import unanswered_letters
from headrace.recovery.raw_records import records_between
from headrace.stages.ingest_progress import committed_offsets, end_of_topic
from headrace.storage.influx import Influx
from headrace.storage.influx_points import stored_points
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import Offsets, end_offsets, read_topic, reader
from headrace.storage.lost_ledger import unreported_losses
from headrace.storage.records import SkippedRecords

__all__ = ["Audit", "audit"]

_NAMED = 1000
_ROWS = 10_000
_CACHE_KILOBYTES = 32 * 1024


@dataclass
class Audit:
    """Counts of the readings in a range of event time.

    ``readings = points + overwritten + repeated + refused + pending + lost``, unless
    another program writes to the bucket, which ``foreign`` counts.

    Parameters
    ----------
    start, stop
        The range, RFC 3339.
    readings
        Raw records in Kafka.
    points
        Points in InfluxDB that belong to such a record.
    overwritten
        Readings with the device and time of another reading, and other content.
    repeated
        Readings with the device, time and content of another reading.
    dead_letters
        Readings that the bridge or the sink rejected, and that were not replayed.
    refused
        Dead letters of the sink. Their raw records are in Kafka, too.
    pending
        Readings that the sink has not reached yet.
    lost
        Readings in Kafka that should be in InfluxDB and are not.
    missing
        Device and time of the lost readings, a thousand at most.
    deleted
        Records that Kafka deleted before the sink wrote them: all ranges of offsets
        reported since the start of the range. Their event times are unknown.
    foreign
        Points without a record in Kafka.
    skipped
        Records of other programs on the dead-letter topic.
    complete
        Whether Kafka still has all records of the range.
    note
        Explanation if it does not.
    """

    start: str
    stop: str
    readings: int = 0
    points: int = 0
    overwritten: int = 0
    repeated: int = 0
    dead_letters: int = 0
    refused: int = 0
    pending: int = 0
    lost: int = 0
    missing: list[dict[str, str]] = field(default_factory=list)
    deleted: list[LostRecords] = field(default_factory=list)
    foreign: int = 0
    skipped: int = 0
    complete: bool = True
    note: str = ""

    @property
    def nothing_lost(self) -> bool:
        """Whether every reading is stored, waits for the sink, or is a dead letter."""
        return not self.lost and not self.deleted

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `headrace audit --json` prints."""
        content = asdict(self)
        content["deleted"] = [item.as_dict() for item in self.deleted]
        return {"from": content.pop("start"), "to": content.pop("stop"), **content}


def audit(
    kafka: Kafka,
    influx: Influx,
    profile: Profile,
    start: datetime,
    stop: datetime,
    margin: timedelta,
    progress: Callable[[int], None],
) -> Audit:
    """Count the readings of a range exactly, with a temporary file on disk for large ranges.

    Parameters
    ----------
    kafka, influx
        Clients.
    profile
        The kind of device.
    start, stop
        Event time, ``[start, stop)``.
    margin
        How long before its event time a reading can arrive, see
        `headrace.recovery.raw_records.arrival_margin`.
    progress
        Receives the number of records, letters and points read since the last call.

    Raises
    ------
    MissingResourceError, AccessDeniedError, TransientError
        If a server can't be queried.
    """
    result = Audit(rfc3339(start), rfc3339(stop))
    _note_what_is_gone(result, kafka, profile, start - margin)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-audit-") as folder,
        # The context manager of sqlite3 only commits.
        closing(sqlite3.connect(Path(folder) / "audit.sqlite")) as tally,
    ):
        _prepare(tally)
        # The order matters while readings arrive. All points of records that were committed
        # before exist when the points are read, and each of these points has its record when the
        # records are read.
        committed = _committed(kafka, profile)
        _count_points(tally, influx, profile, start, stop, progress)
        _count_records(tally, kafka, profile, committed, start, stop, margin, progress)
        _count_letters(tally, result, kafka, profile, start, stop, margin, progress)
        result.deleted = merged([*result.deleted, *_unreported(kafka, profile, committed)])
        _compare(tally, result)
    return result


def _prepare(tally: sqlite3.Connection) -> None:
    tally.executescript(
        f"""
        PRAGMA journal_mode = OFF;
        PRAGMA synchronous = OFF;
        PRAGMA cache_size = -{_CACHE_KILOBYTES};
        CREATE TABLE record (
            device TEXT, time_ns INTEGER, digest BLOB, place TEXT, pending INTEGER
        );
        CREATE TABLE point (device TEXT, time_ns INTEGER);
        CREATE TABLE refused (place TEXT PRIMARY KEY);
        """
    )


def _note_what_is_gone(result: Audit, kafka: Kafka, profile: Profile, arrival: datetime) -> None:
    """Set the note if Kafka may have deleted records that arrived after this time."""
    topic = profile.topics.raw
    with reader(kafka) as consumer:
        first, end = end_offsets(consumer, topic)
    earliest = int(arrival.timestamp() * 1000)
    gone = []
    for partition, offset in first.items():
        if not offset:
            continue
        one = read_topic(
            kafka, topic, {partition: offset}, {partition: min(offset + 1, end[partition])}
        )
        oldest = next(iter(one), None)
        if oldest is None or oldest.timestamp_ms >= earliest:
            gone.append(partition)
    if gone:
        result.complete = False
        result.note = (
            f"Kafka may no longer hold all records of this range: it deleted the beginning of "
            f"partitions {gone} of {topic}. The counts cover the remaining records"
        )


def _count_letters(
    tally: sqlite3.Connection,
    result: Audit,
    kafka: Kafka,
    profile: Profile,
    start: datetime,
    stop: datetime,
    margin: timedelta,
    progress: Callable[[int], None],
) -> None:
    first, last = epoch_ns(start), epoch_ns(stop)
    since_ms = int((start - margin).timestamp() * 1000)
    skipped = SkippedRecords()
    lost: list[LostRecords] = []
    for letter in unanswered_letters(kafka, profile, skipped, lost.append):
        progress(1)
        if first <= letter.time_ns < last:
            result.dead_letters += 1
        if letter.source:
            # Regardless of its time: the letter can be outside the range of its record.
            tally.execute("INSERT OR IGNORE INTO refused VALUES (?)", (letter.source,))
    result.skipped = sum(skipped.counts.values())
    result.deleted = merged(item for item in lost if item.recorded_ms >= since_ms)


def _unreported(kafka: Kafka, profile: Profile, committed: Offsets) -> list[LostRecords]:
    """Return the records that Kafka deleted since the sink stopped; it reports them later."""
    with reader(kafka) as consumer:
        first, _ = end_offsets(consumer, profile.topics.raw)
    return unreported_losses(profile.topics.raw, first, committed)


def _committed(kafka: Kafka, profile: Profile) -> Offsets:
    topic = profile.topics.raw
    partitions = sorted(end_of_topic(kafka, topic))
    return committed_offsets(kafka, topic, profile.sink_group, partitions)


def _count_records(
    tally: sqlite3.Connection,
    kafka: Kafka,
    profile: Profile,
    committed: Offsets,
    start: datetime,
    stop: datetime,
    margin: timedelta,
    progress: Callable[[int], None],
) -> None:
    device_of = _device_reader(profile)

    def rows() -> Iterator[tuple[str, int, bytes, str, bool]]:
        for record, time_ns in records_between(kafka, profile, start, stop, margin, progress):
            yield (
                device_of(record),
                time_ns,
                hashlib.blake2b(record.value, digest_size=16).digest(),
                f"{record.topic}/{record.partition}/{record.offset}",
                record.offset >= committed.get(record.partition, 0),
            )

    _insert(tally, "record", 5, rows())


def _device_reader(profile: Profile) -> Callable[[Record], str]:
    """Return a function that finds the device of a record.

    Like the sink, it reads the payload: another program can write a different key.
    """
    struct = msgspec.defstruct("Device", [(profile.id_field, str)])
    decode = msgspec.json.Decoder(struct).decode
    id_of = attrgetter(profile.id_field)

    def device_of(record: Record) -> str:
        try:
            return str(id_of(decode(record.value)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return record.key.decode("utf-8", "replace")

    return device_of


def _count_points(
    tally: sqlite3.Connection,
    influx: Influx,
    profile: Profile,
    start: datetime,
    stop: datetime,
    progress: Callable[[int], None],
) -> None:
    def rows() -> Iterator[tuple[str, int]]:
        for point in stored_points(influx, profile, start, stop):
            progress(1)
            yield point

    _insert(tally, "point", 2, rows())


def _insert(
    tally: sqlite3.Connection, table: str, columns: int, rows: Iterable[tuple[Any, ...]]
) -> None:
    places = ", ".join("?" * columns)
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS)):
        tally.executemany(f"INSERT INTO {table} VALUES ({places})", batch)  # noqa: S608
    tally.execute(f"CREATE INDEX {table}_identity ON {table} (device, time_ns)")


def _compare(tally: sqlite3.Connection, result: Audit) -> None:
    def number(query: str) -> int:
        return int(tally.execute(query).fetchone()[0])

    # A refused reading has no point, so no other reading can overwrite it.
    tally.executescript(
        """
        CREATE TEMP VIEW kept AS SELECT * FROM record WHERE place NOT IN refused;
        CREATE TEMP VIEW place_taken AS
            SELECT device, time_ns, COUNT(*) AS readings, COUNT(DISTINCT digest) AS contents,
                   MIN(pending) AS pending
            FROM kept GROUP BY device, time_ns;
        CREATE TEMP TABLE absent AS
            SELECT p.* FROM place_taken p
            LEFT JOIN point q ON q.device = p.device AND q.time_ns = p.time_ns
            WHERE q.device IS NULL;
        """
    )
    result.readings = number("SELECT COUNT(*) FROM record")
    result.refused = number("SELECT COUNT(*) FROM record WHERE place IN refused")
    places = number("SELECT COUNT(*) FROM place_taken")
    extra = number("SELECT COALESCE(SUM(readings - 1), 0) FROM place_taken")
    result.overwritten = number("SELECT COALESCE(SUM(contents - 1), 0) FROM place_taken")
    result.repeated = extra - result.overwritten
    result.pending = number("SELECT COUNT(*) FROM absent WHERE pending")
    result.lost = number("SELECT COUNT(*) FROM absent WHERE NOT pending")
    result.points = places - result.pending - result.lost
    result.foreign = number("SELECT COUNT(*) FROM point") - result.points
    missing = tally.execute(
        "SELECT device, time_ns FROM absent WHERE NOT pending ORDER BY time_ns LIMIT ?", (_NAMED,)
    )
    result.missing = [{"device": device, "time": _text(time_ns)} for device, time_ns in missing]


def _text(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
    return f"{whole}.{fraction:09d}Z"
