"""The event time of a raw record, from the header ``time_ns`` of the bridge."""

from __future__ import annotations

from headrace.models.deadletter import Reason, RejectedReadingError

__all__ = ["TIME_HEADER", "event_time", "stamp_of"]

#: Name of the header.
TIME_HEADER = "time_ns"
#: Nanoseconds since the epoch are a signed 64-bit integer, as in InfluxDB.
_MOST_NS = (1 << 63) - 1
_MOST_DIGITS = 19


def stamp_of(header: bytes | None) -> int | None:
    """Parse a header with nanoseconds since the epoch.

    Returns
    -------
    int or None
        `None` for anything but ASCII digits, and for numbers beyond 64 bits.
    """
    if header is None or len(header) > _MOST_DIGITS or not header.isdigit():
        return None
    number = int(header)
    return number if number <= _MOST_NS else None


def event_time(header: bytes | None, timestamp_ms: int) -> bytes:
    """Return the time of a raw record's reading, in nanoseconds since the epoch, as text.

    Parameters
    ----------
    header
        The record's ``time_ns``; `None` if no bridge wrote the record. Then the reading
        has the time of the record's arrival.
    timestamp_ms
        Kafka's timestamp of the record.

    Raises
    ------
    RejectedReadingError
        If the header has no such time.
    """
    if header is None:
        return b"%d" % (timestamp_ms * 1_000_000)
    if stamp_of(header) is None:
        raise RejectedReadingError(Reason.TIME_INVALID, f"header time_ns is {header[:50]!r}")
    return header
