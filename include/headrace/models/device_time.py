"""The ``time`` that a device sends with a reading."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

__all__ = ["InvalidTimeError", "epoch_ns", "parse_device_time", "shown", "unusable_time"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d:\d\d))", re.ASCII
)
_SHOWN_CHARACTERS = 60
_SEND = "send RFC 3339, such as 2026-01-31T12:00:00Z, or whole epoch milliseconds"
#: A number counts as a time in a unit if it gives a time between 2010 and 2100.
_FIRST_SECOND, _LAST_SECOND = 1_262_304_000, 4_102_444_800
_UNITS = (
    ("seconds", 1),
    ("milliseconds", 1_000),
    ("microseconds", 1_000_000),
    ("nanoseconds", 1_000_000_000),
)
_MILLISECONDS = "milliseconds"
_NUMBER = re.compile(r"\s*[+-]?(\d+)(\.\d*)?([eE][+-]?\d+)?\s*", re.ASCII)
#: Maximum length of an epoch number; longer text is not converted.
_MAX_NUMBER_CHARACTERS = 40


class _Form(NamedTuple):
    """A format that looks like a time but is not RFC 3339."""

    pattern: re.Pattern[str]
    problem: str


_DATE = r"\d{4}-\d\d-\d\d"
_CLOCK = r"\d\d:\d\d:\d\d(?:\.\d+)?"
_OFFSET = r"(?:[Zz]|[+-]\d\d:\d\d)"
#: From the most to the least specific. The first match is reported.
_FORMS = tuple(
    _Form(re.compile(pattern, re.ASCII), problem)
    for pattern, problem in (
        (_DATE, "is a date without a time"),
        (rf"{_CLOCK}{_OFFSET}?", "is a time without a date"),
        (rf"{_DATE}[Tt ]{_CLOCK}", "has no time zone: append Z or an offset such as +01:00"),
        (
            rf"{_DATE}[Tt ]{_CLOCK}[+-]\d{{4}}",
            "has an offset without a colon: write it like +01:00",
        ),
        (
            rf"{_DATE}[Tt ]{_CLOCK}[+-]\d\d",
            "has an offset without minutes: write it like +01:00",
        ),
        (rf"{_DATE}[Tt ]\d\d:\d\d{_OFFSET}?", "has no seconds"),
        (rf"{_DATE}[Tt ]\d\d:\d\d:\d\d,\d+{_OFFSET}?", "has a comma before the fraction"),
        (
            rf"{_DATE}[Tt ]{_CLOCK} +\S+",
            "has a space before the time zone: append Z or an offset such as +01:00",
        ),
        (r"\d{8}[Tt]\d{4,6}(?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)?", "is in the basic format"),
    )
)


class InvalidTimeError(ValueError):
    """A ``time`` is neither RFC 3339 nor whole epoch milliseconds. The message has its format."""


def epoch_ns(moment: datetime) -> int:
    """Return nanoseconds since the epoch, exact to the microsecond of a datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def parse_device_time(time: int | str) -> int:
    """Read a device's ``time``: epoch milliseconds, or RFC 3339 to the nanosecond.

    Returns
    -------
    int
        Nanoseconds since the epoch, of any size.

    Raises
    ------
    InvalidTimeError
        If it is neither, or a number that looks like another unit.
    """
    if isinstance(time, int):
        unit = _unit_of(time)
        if unit not in (None, _MILLISECONDS):
            raise InvalidTimeError(unusable_time(time))
        return time * 1_000_000
    match = _RFC3339.fullmatch(time)
    if match is None:
        raise InvalidTimeError(unusable_time(time))
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{offset or '+00:00'}")
    except ValueError as exc:
        problem = _impossible(clock) or f"does not exist: {exc}"
        msg = f"time {shown(time)} {problem}"
        raise InvalidTimeError(msg) from None
    return epoch_ns(moment) + int((fraction or "")[:9].ljust(9, "0"))


def unusable_time(time: object) -> str:
    """Describe a ``time`` that is neither RFC 3339 nor whole milliseconds."""
    if isinstance(time, str):
        return f"time {shown(time)} {_problem_of_text(time)}"
    if isinstance(time, bool):
        return f"time is {str(time).lower()}, a boolean: {_SEND}"
    if isinstance(time, int | float):
        return f"time {shown(time)} {_problem_of_number(time)}"
    kind = "an array" if isinstance(time, list) else "an object"
    return f"time is {kind}: {_SEND}"


def shown(time: object) -> str:
    """Format a ``time`` for people, with a limited length."""
    if isinstance(time, int) and abs(time) >= 10**_SHOWN_CHARACTERS:
        # Python refuses to format very long integers.
        return f"a number of {time.bit_length() * 30103 // 100_000 + 1} digits"
    text = repr(time)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]}..."
    return text


def _unit_of(number: float) -> str | None:
    """Return the unit in which a number is a plausible time since the epoch."""
    for unit, per_second in _UNITS:
        if _FIRST_SECOND * per_second <= number < _LAST_SECOND * per_second:
            return unit
    return None


def _problem_of_number(number: float) -> str:
    unit = _unit_of(number)
    if unit == _MILLISECONDS:
        return "has a decimal point or an exponent: send whole milliseconds, or RFC 3339"
    if unit is not None:
        return f"looks like epoch {unit}: send milliseconds or RFC 3339"
    return (
        f"is not a whole number: {_SEND}" if isinstance(number, float) else f"is no time: {_SEND}"
    )


def _problem_of_text(text: str) -> str:
    if not text.strip():
        return f"is empty: leave it out, or {_SEND}"
    if len(text) <= _MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(text):
        unit = _unit_of(float(text))
        if unit is None:
            return f"is a number in quotes: {_SEND}"
        return f"looks like epoch {unit} in quotes: send milliseconds without quotes, or RFC 3339"
    for form in _FORMS:
        if form.pattern.fullmatch(text):
            return f"{form.problem}; {_SEND}"
    return f"is not RFC 3339: {_SEND}"


def _impossible(clock: str) -> str | None:
    """Describe a time of day that other standards allow but RFC 3339 parsers refuse."""
    if clock.startswith("24"):
        return "has hour 24: send 00:00:00 of the next day"
    if clock.endswith("60"):
        return "has second 60, a leap second: send second 59"
    return None
