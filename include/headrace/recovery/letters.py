"""Reads the dead-letter topic and finds the letters that were not sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from headrace.models.deadletter import Reason
from headrace.models.event_time import TIME_HEADER, stamp_of
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.lost import KAFKA_DELETED, LostRecords
from headrace.profile import Profile
from headrace.storage.kafka import Headers, Kafka, Record
from headrace.storage.kafka_log import offsets_at, read_topic, reader
from headrace.storage.lost_records import read_lost
from headrace.storage.records import SkippedRecords, own_records

__all__ = [
    "REPLAYED",
    "Answer",
    "Letter",
    "count_rejected",
    "read_dead_letter",
    "replayed_headers",
    "unanswered_letters",
]

#: Header ``reason`` of an answer, the record that marks a letter as sent again.
REPLAYED = "replayed"
_REASONS = frozenset(Reason)
#: `count_rejected` reads at most this number of records and counts the offsets of the rest.
_MOST_READ = 100_000


@dataclass(frozen=True)
class Letter:
    """A dead letter.

    Parameters
    ----------
    record
        Record of the letter.
    reason
        Why the reading was rejected.
    time_ns
        Time of the reading, or when the bridge received it if the reading has none.
    whole
        Whether the letter holds the whole payload.
    source
        The raw record that the sink rejected, as topic/partition/offset. Empty if the
        bridge rejected the reading, so that there is no raw record.
    dated
        Whether `time_ns` is from the letter's header. Otherwise the header is missing or
        unreadable, and `time_ns` is when the letter arrived.
    """

    record: Record
    reason: str
    time_ns: int
    whole: bool
    source: str
    dated: bool = True

    @property
    def place(self) -> str:
        """Position of the letter, as topic/partition/offset."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"


@dataclass(frozen=True)
class Answer:
    """A record that marks a letter as sent again.

    Parameters
    ----------
    place
        Position of the letter.
    source
        `Letter.source` of the letter. The answer covers every letter about that raw record.
    """

    place: str
    source: str


def read_dead_letter(record: Record) -> Letter | Answer | LostRecords:
    """Read a record of the dead-letter topic.

    Raises
    ------
    ForeignRecordError
        If it is not one of the three kinds that Headrace writes there.
    """
    headers = record.headers
    reason = _text(headers.get("reason"))
    source = _text(headers.get("source"))
    if reason == REPLAYED:
        if not source:
            raise ForeignRecordError(ForeignReason.MISSING_FIELD, "an answer without `source`")
        return Answer(source, _text(headers.get("record")))
    if reason == KAFKA_DELETED:
        return read_lost(headers, record.timestamp_ms)
    if not reason:
        raise ForeignRecordError(ForeignReason.MISSING_FIELD, "no header `reason`")
    if reason not in _REASONS:
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"reason {reason[:100]!r}")
    stamp = stamp_of(headers.get(TIME_HEADER))
    return Letter(
        record,
        reason,
        record.timestamp_ms * 1_000_000 if stamp is None else stamp,
        headers.get("size", b"") == b"%d" % len(record.value),
        source,
        dated=stamp is not None,
    )


def _text(header: bytes | None) -> str:
    return (header or b"").decode("utf-8", "replace")


def unanswered_letters(
    kafka: Kafka,
    profile: Profile,
    skipped: SkippedRecords | None = None,
    lost: Callable[[LostRecords], object] | None = None,
) -> Iterator[Letter]:
    """Read the dead letters that were not sent again.

    A sink that dies before a commit can write a second letter about the same raw record. Such
    duplicates count once, and an answer to one of them covers all.

    Parameters
    ----------
    kafka, profile
        Location of the dead letters.
    skipped
        Counts foreign records.
    lost
        Receives the reports of lost records on the same topic.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    topic = profile.topics.dead_letter
    places: set[str] = set()
    sources: set[str] = set()
    for item in own_records(read_topic(kafka, topic), read_dead_letter, SkippedRecords()):
        if isinstance(item, Answer):
            places.add(item.place)
            if item.source:
                sources.add(item.source)
    skipped = SkippedRecords() if skipped is None else skipped
    for item in own_records(read_topic(kafka, topic), read_dead_letter, skipped):
        if isinstance(item, LostRecords):
            if lost is not None:
                lost(item)
        elif isinstance(item, Letter):
            answered = item.place in places or item.source in sources
            if item.source:
                # Also for answered letters: answers of older versions name only the letter.
                sources.add(item.source)
            if not answered:
                yield item


def count_rejected(kafka: Kafka, profile: Profile, start: datetime, stop: datetime) -> int:
    """Count the readings whose dead letters arrived in ``[start, stop)``.

    Answers, reports of lost records and foreign records do not count, and duplicates count
    once. At most 100,000 records are read; the rest is counted by offsets.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    topic = profile.topics.dead_letter
    with reader(kafka) as consumer:
        begin, end = offsets_at(consumer, topic, start), offsets_at(consumer, topic, stop)
    rejected = read = 0
    left = sum(max(0, end[partition] - offset) for partition, offset in begin.items())
    sources: set[str] = set()
    for record in read_topic(kafka, topic, begin, end):
        read += 1
        left -= 1
        try:
            item = read_dead_letter(record)
        except ForeignRecordError:
            continue
        if isinstance(item, Letter) and item.source not in sources:
            rejected += 1
            if item.source:
                sources.add(item.source)
        if read == _MOST_READ:
            return rejected + left
    return rejected


def replayed_headers(letter: Letter) -> Headers:
    """Return the headers of the record that answers a letter."""
    headers: Headers = [("reason", REPLAYED), ("source", letter.place)]
    return [*headers, ("record", letter.source)] if letter.source else headers
