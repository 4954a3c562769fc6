"""Time windows: half-open, aligned to UTC, identified by their start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headrace.errors import ConfigurationError

__all__ = [
    "WindowRange",
    "floor",
    "parse_time",
    "pieces_of",
    "ranges_of",
    "rfc3339",
    "whole_windows",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def floor(moment: datetime, length: timedelta) -> datetime:
    """Return the start of the window of this length that contains the moment."""
    return moment - (moment - _EPOCH) % length


def rfc3339(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, such as ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time.

    Raises
    ------
    ConfigurationError
        If the text is not such a time, or has no offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            # Near the years 1 and 9999, a conversion to another time zone is out of range.
            return moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        msg = f"{text!r} is not a time: write it like 2026-01-31T12:00:00Z"
        raise ConfigurationError(msg) from exc
    msg = f"{text!r} has no time zone: write it like 2026-01-31T12:00:00Z"
    raise ConfigurationError(msg)


@dataclass(frozen=True, order=True)
class WindowRange:
    """One or more consecutive windows: ``[start, stop)``.

    Parameters
    ----------
    start
        Start of the first window, inclusive.
    stop
        End of the last window, exclusive.
    length
        Length of each window.
    """

    start: datetime
    stop: datetime
    length: timedelta

    def __post_init__(self) -> None:
        for name, moment in (("start", self.start), ("stop", self.stop)):
            if moment.tzinfo is None or moment != floor(moment, self.length):
                msg = f"{name} {moment} is not the start of a window of {self.length} in UTC"
                raise ConfigurationError(msg)
        if self.start >= self.stop:
            msg = f"the range from {rfc3339(self.start)} to {rfc3339(self.stop)} contains no window"
            raise ConfigurationError(msg)

    def __len__(self) -> int:
        return (self.stop - self.start) // self.length

    def __str__(self) -> str:
        return f"[{rfc3339(self.start)}, {rfc3339(self.stop)})"

    def starts(self) -> Iterator[datetime]:
        """Iterate over the starts of the windows, in order."""
        for index in range(len(self)):
            yield self.start + index * self.length

    def pieces(self, windows: int) -> Iterator[WindowRange]:
        """Cut the range into ranges with a maximum number of windows, in order."""
        step = windows * self.length
        start = self.start
        while start < self.stop:
            stop = min(start + step, self.stop)
            yield WindowRange(start, stop, self.length)
            start = stop


def whole_windows(begin: datetime, end: datetime, length: timedelta) -> WindowRange | None:
    """Return the windows that are entirely between two times; `None` if there are none."""
    # A window that started before `begin` is left out.
    start = floor(begin + length - timedelta(microseconds=1), length)
    stop = floor(end, length)
    return WindowRange(start, stop, length) if start < stop else None


def ranges_of(starts: Iterable[datetime], length: timedelta) -> list[WindowRange]:
    """Join single windows, given by their starts, into as few ranges as possible."""
    ranges: list[WindowRange] = []
    for start in sorted(set(starts)):
        if ranges and ranges[-1].stop == start:
            ranges[-1] = WindowRange(ranges[-1].start, start + length, length)
        else:
            ranges.append(WindowRange(start, start + length, length))
    return ranges


def pieces_of(starts: Iterable[datetime], length: timedelta, windows: int) -> list[WindowRange]:
    """Cover single windows with as few ranges of a maximum length as possible.

    Unlike `ranges_of`, it includes windows between them.
    """
    pieces: list[WindowRange] = []
    for start in sorted(set(starts)):
        if pieces and start < pieces[-1].start + windows * length:
            pieces[-1] = WindowRange(pieces[-1].start, start + length, length)
        else:
            pieces.append(WindowRange(start, start + length, length))
    return pieces
