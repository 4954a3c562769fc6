"""Finds the reason why a payload is not a reading, after the fast decoder has refused it."""

from __future__ import annotations

import codecs
import json
import math
from typing import Any

import msgspec

from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.device_time import unusable_time
from headrace.profile import Profile

__all__ = ["check_utf8", "explain"]

_TIME = "time"
#: A longer number exceeds a 64-bit float, and Python limits the length of parsed integers.
_MAX_DIGITS = 400
#: Encodings besides UTF-8, with the names of `json.detect_encoding`.
_ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32": "UTF-32",
    "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32",
}
_BEGINNINGS = frozenset('{["')
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "an array"),
    (dict, "an object"),
)


class _Constants:
    """Records ``NaN`` and ``Infinity``, which Python's parser accepts although JSON has neither."""

    def __init__(self) -> None:
        self.first: str | None = None

    def __call__(self, text: str) -> float:
        self.first = self.first or text
        return float(text)


def explain(payload: bytes, error: Exception, profile: Profile) -> RejectedReadingError:
    """Find the reason why msgspec did not accept a payload.

    The reason is true even if the payload has other errors. For example, only a JSON object
    without the field gets `missing_field`.

    Parameters
    ----------
    payload
        The payload.
    error
        Error of msgspec.
    profile
        The kind of device.
    """
    return RejectedReadingError(*_reason(payload, error, profile))


def check_utf8(payload: bytes) -> None:
    """Check that a payload is UTF-8.

    Raises
    ------
    RejectedReadingError
        If it is not.
    """
    problem = _not_utf8(payload)
    if problem is not None:
        raise RejectedReadingError(Reason.NOT_JSON, problem)


def _reason(  # noqa: PLR0911 - one return for each reason
    payload: bytes, error: Exception, profile: Profile
) -> tuple[Reason, str]:
    if not payload.strip():
        return Reason.NOT_JSON, "the payload is empty or white space"
    problem = _not_utf8(payload)
    if problem is not None:
        return Reason.NOT_JSON, problem
    constants = _Constants()
    try:
        content = json.loads(
            payload.removeprefix(codecs.BOM_UTF8).decode(),
            parse_constant=constants,
            parse_int=_parse_int,
        )
    except RecursionError:
        return Reason.NOT_JSON, "the payload is nested too deeply"
    except ValueError as exc:
        return Reason.NOT_JSON, f"the payload is not JSON: {exc}"
    if constants.first is not None:
        return _constant(content, constants.first, profile)
    if not isinstance(content, dict):
        return Reason.NOT_AN_OBJECT, f"the payload is {_kind(content)}, not an object"
    return _fault_of(content, profile) or _fault_of_decoder(payload, error)


def _fault_of(  # noqa: PLR0911 - one return for each reason
    content: dict[str, Any], profile: Profile
) -> tuple[Reason, str] | None:
    """Find the problem of a JSON object."""
    for name in (profile.id_field, *profile.required_fields):
        if name not in content:
            return Reason.MISSING_FIELD, f"{name} is missing"
    for name in profile.fields:
        if _is_not_finite(content.get(name)):
            return Reason.NOT_FINITE, f"{name} is too large for a 64-bit float"
    if not isinstance(content[profile.id_field], str):
        kind = _kind(content[profile.id_field])
        return Reason.WRONG_TYPE, f"{profile.id_field} is {kind}, it must be text"
    for name, spec in profile.fields.items():
        value = content.get(name)
        if (value is None and not spec.required) or _is_number(value):
            continue
        return Reason.WRONG_TYPE, f"{name} is {_kind(value)}, it must be a number"
    time = content.get(_TIME)
    if isinstance(time, bool) or not isinstance(time, int | str | None):
        if isinstance(time, float) and math.isinf(time):
            return Reason.TIME_INVALID, "time is a number that is too large for a time"
        return Reason.TIME_INVALID, unusable_time(time)
    return None


def _fault_of_decoder(payload: bytes, error: Exception) -> tuple[Reason, str]:
    """Describe a problem that only msgspec finds, because Python parses a valid reading."""
    if isinstance(error, RecursionError):
        return Reason.NOT_JSON, "the payload is nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        # A repeated key: Python uses its last value, msgspec checks each.
        return Reason.WRONG_TYPE, f"{error} (a key is repeated)"
    if b"\\u" in payload:
        return Reason.NOT_JSON, "a \\u escape is half of a surrogate pair, so it is no character"
    return Reason.NOT_JSON, str(error)


def _constant(content: Any, text: str, profile: Profile) -> tuple[Reason, str]:
    """Describe the position of ``NaN`` or ``Infinity``."""
    if isinstance(content, dict):
        for name in profile.fields:
            value = content.get(name)
            if isinstance(value, float) and not math.isfinite(value):
                return Reason.NOT_FINITE, f"{name} is {_spelled(value)}"
        time = content.get(_TIME)
        if isinstance(time, float) and not math.isfinite(time):
            return Reason.TIME_INVALID, f"time is {_spelled(time)}"
    return Reason.NOT_JSON, f"{text} is not JSON"


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"


def _not_utf8(payload: bytes) -> str | None:
    """Describe why a payload is not UTF-8 text; `None` if it is."""
    encoding = json.detect_encoding(payload)
    name = _ENCODINGS.get(encoding)
    if name is not None and _begins_like_json(payload, encoding):
        return f"the payload looks like {name}: send UTF-8"
    try:
        payload.decode()
    except UnicodeDecodeError as exc:
        return f"the payload is not UTF-8: byte {payload[exc.start]:#04x} at {exc.start}"
    return None


def _begins_like_json(payload: bytes, encoding: str) -> bool:
    try:
        text = payload.decode(encoding)
    except UnicodeDecodeError:
        return False
    return text.lstrip("\ufeff \t\r\n")[:1] in _BEGINNINGS


def _parse_int(text: str) -> float:
    """Parse an integer; return infinity if it is too long."""
    if len(text) > _MAX_DIGITS:
        return -math.inf if text[0] == "-" else math.inf
    return int(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_not_finite(value: Any) -> bool:
    if not _is_number(value):
        return False
    try:
        return not math.isfinite(value)
    except OverflowError:
        return True


def _kind(value: Any) -> str:
    return next((kind for type_, kind in _KINDS if isinstance(value, type_)), "null")
