"""Skips, logs and counts foreign records on topics that others can write to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.storage.kafka import Record

__all__ = ["SkippedRecords", "own_records"]

_log = structlog.get_logger(__name__)

_Value = TypeVar("_Value")


class SkippedRecords:
    """Counts foreign records by topic and reason, and logs the first of each.

    Attributes
    ----------
    counts
        Number of skipped records by topic and reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ForeignReason]] = Counter()

    def add(self, record: Record, error: ForeignRecordError) -> None:
        """Count a record; log it if it is the first of its topic and reason."""
        place = record.topic, error.reason
        if place not in self.counts:
            _log.warning(
                "foreign record skipped",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=error.reason.value,
                detail=error.detail[:200],
            )
        self.counts[place] += 1

    def by_topic(self) -> dict[str, int]:
        """Number of skipped records of each topic that had any."""
        totals: Counter[str] = Counter()
        for (topic, _), number in self.counts.items():
            totals[topic] += number
        return dict(totals)


def own_records(
    records: Iterable[Record], parse: Callable[[Record], _Value], skipped: SkippedRecords
) -> Iterator[_Value]:
    """Parse records, leaving out those that Headrace did not write.

    Parameters
    ----------
    records
        Records of any topic, such as `headrace.storage.kafka_log.read_topic` yields them.
    parse
        Converts a record to a value, or raises `ForeignRecordError`.
    skipped
        Counts the skipped records.

    Yields
    ------
    object
        Results of `parse`, in the order of the records.
    """
    for record in records:
        try:
            value = parse(record)
        except ForeignRecordError as exc:
            skipped.add(record, exc)
        else:
            yield value
