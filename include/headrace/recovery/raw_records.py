"""Reads the raw records of a range of event time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from headrace.models.device_time import epoch_ns
from headrace.models.event_time import TIME_HEADER, stamp_of
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import offsets_at, read_topic, reader

__all__ = ["arrival_margin", "record_time_ns", "records_between"]

#: Allowed difference between the clocks of a bridge and of Kafka's brokers.
_CLOCK_DIFFERENCE = timedelta(hours=1)


def arrival_margin(settings: Settings) -> timedelta:
    """Return how long before its event time a reading can arrive in Kafka."""
    return settings.max_time_ahead + _CLOCK_DIFFERENCE


def records_between(
    kafka: Kafka,
    profile: Profile,
    start: datetime,
    stop: datetime,
    margin: timedelta,
    progress: Callable[[int], None],
) -> Iterator[tuple[Record, int]]:
    """Read the raw records with an event time in ``[start, stop)``.

    Kafka finds records by their time of arrival. A reading arrives at most `margin` before its
    event time, and at any time after it, so the topic is read to its end.

    Yields
    ------
    tuple
        The record, and its event time in nanoseconds since the epoch.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    topic = profile.topics.raw
    with reader(kafka) as consumer:
        begin = offsets_at(consumer, topic, start - margin)
    first, last = epoch_ns(start), epoch_ns(stop)
    for record in read_topic(kafka, topic, begin):
        progress(1)
        time_ns = record_time_ns(record)
        if first <= time_ns < last:
            yield record, time_ns


def record_time_ns(record: Record) -> int:
    """Return the event time of a raw record, or its arrival time if the header is unreadable."""
    stamp = stamp_of(record.headers.get(TIME_HEADER))
    return record.timestamp_ms * 1_000_000 if stamp is None else stamp
