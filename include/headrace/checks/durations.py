"""Durations, written as ``15s``, ``1m``, ``24h`` or ``30d``."""

from __future__ import annotations

import re
from datetime import timedelta

from headrace.checks.values import Check, NotAllowedError

__all__ = ["Lasting", "duration_text", "parse_duration"]

#: More digits would not fit into a float, and no duration needs them.
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")
_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def parse_duration(text: str) -> timedelta:
    """Read a duration.

    Raises
    ------
    ValueError
        If the text is not a duration, or if it is longer than Python can represent.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        msg = "a duration is a number and ms, s, m, h or d, such as 15s"
        raise ValueError(msg)
    try:
        return float(match[1]) * _UNITS[match[2]]
    except OverflowError as exc:
        msg = "the duration is too long"
        raise ValueError(msg) from exc


def duration_text(length: timedelta) -> str:
    """Write a duration as settings and profiles do, such as ``15s``."""
    unit = next((name for name, size in _UNITS.items() if length and not length % size), "s")
    return f"{length / _UNITS[unit]:.15g}{unit}"


class Lasting(Check):
    """A duration from `shortest` to `longest`.

    Parameters
    ----------
    shortest, longest
        The bounds, written as durations. Both are allowed.
    whole_seconds
        Whether the duration must be whole seconds, because its server counts in seconds.
    """

    def __init__(self, shortest: str, longest: str, *, whole_seconds: bool = False) -> None:
        seconds = " of whole seconds" if whole_seconds else ""
        super().__init__(f"a duration{seconds} from {shortest} to {longest}")
        self.shortest, self.longest = parse_duration(shortest), parse_duration(longest)
        self._whole_seconds = whole_seconds

    def read(self, value: object) -> timedelta:
        """Read a duration. A number without a unit is refused."""
        length = parse_duration(value) if isinstance(value, str) else value
        if not isinstance(length, timedelta) or not self.shortest <= length <= self.longest:
            raise NotAllowedError
        if self._whole_seconds and length % timedelta(seconds=1):
            raise NotAllowedError
        return length
