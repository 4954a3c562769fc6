"""Checks and splits ranges of windows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from headrace.errors import ConfigurationError, RawDataGoneError
from headrace.models.window import WindowRange, floor, pieces_of, rfc3339

__all__ = [
    "MOST_PIECES",
    "PIECE",
    "check_range",
    "cut_range",
    "cut_windows",
    "installed_at_problem",
]

#: Windows in one piece of a range. An hour of windows costs little more than one window.
PIECE = 60
#: Airflow accepts at most 1,024 mapped tasks.
MOST_PIECES = 500
#: A setting in the future by no more than this is attributed to clock differences.
_CLOCK_DIFFERENCE = timedelta(minutes=1)


def check_range(windows: WindowRange, now: datetime, oldest_raw: datetime) -> None:
    """Refuse a range that ends in the future or starts before the oldest raw readings.

    Parameters
    ----------
    windows
        The range.
    now
        The current time.
    oldest_raw
        Start of the kept raw readings.

    Raises
    ------
    ConfigurationError
        If the last window has not ended.
    RawDataGoneError
        If raw readings of the first window may be deleted. Computing the range would replace
        its rows by rows from fewer readings.
    """
    if windows.stop > now:
        over = floor(now, windows.length)
        msg = (
            f"the range {windows} reaches {_text(windows.stop - now)} into the future: choose a "
            f"stop of {rfc3339(over)} or earlier"
        )
        raise ConfigurationError(msg)
    if windows.start < oldest_raw:
        first = floor(oldest_raw, windows.length) + windows.length
        msg = (
            f"the raw readings of {windows} are gone: they are kept from {rfc3339(first)} on. "
            "The stored rows are left unchanged. Choose a later start"
        )
        raise RawDataGoneError(msg)


def cut_range(windows: WindowRange, most: int = MOST_PIECES) -> list[WindowRange]:
    """Cut a range into pieces of `PIECE` windows, or more if there would be too many pieces.

    Parameters
    ----------
    windows
        The range.
    most
        Maximum number of pieces.
    """
    needed = -(-len(windows) // most)
    return list(windows.pieces(PIECE * max(1, -(-needed // PIECE))))


def cut_windows(
    starts: Collection[datetime], length: timedelta, most: int = MOST_PIECES
) -> list[WindowRange]:
    """Cover single windows with pieces like those of `cut_range`.

    Windows between two of them are included, because that costs less than another piece and
    changes nothing.
    """
    size = PIECE
    while len(pieces := pieces_of(starts, length, size)) > most:
        size += PIECE
    return pieces


def installed_at_problem(installed_at: datetime, now: datetime) -> str | None:
    """Return the problem of ``HEADRACE_INSTALLED_AT``; `None` if there is none.

    Parameters
    ----------
    installed_at
        The setting.
    now
        The current time.
    """
    ahead = installed_at - now
    if ahead <= _CLOCK_DIFFERENCE:
        return None
    return (
        f"HEADRACE_INSTALLED_AT ({rfc3339(installed_at)}) lies {_text(ahead)} ahead: no window "
        "before it counts as missing. Next: set it to a time in the past, or check this machine's "
        "clock"
    )


def _text(duration: timedelta) -> str:
    return str(duration - timedelta(microseconds=duration.microseconds))
