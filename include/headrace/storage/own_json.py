"""Parses the JSON of records on our output topics, to which others can write, too.

Every function raises only `ForeignRecordError`, for content that Headrace does not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.models.device_id import is_unwritable
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.window import parse_time

__all__ = ["device_of", "integer_of", "object_of", "text_of", "time_of"]

#: Maximum revision, far more than a record can have.
_MAX_INTEGER = 2**31 - 1
#: Maximum number of characters shown of a wrong value.
_SHOWN = 40


def object_of(value: bytes) -> dict[str, Any]:
    """Parse a JSON object."""
    if not value:
        raise ForeignRecordError(ForeignReason.EMPTY)
    try:
        content = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise ForeignRecordError(ForeignReason.NOT_JSON, str(exc)) from None
    except RecursionError:
        raise ForeignRecordError(ForeignReason.NOT_JSON, "nested too deeply") from None
    if not isinstance(content, dict):
        raise ForeignRecordError(ForeignReason.NOT_AN_OBJECT, type(content).__name__)
    return content


def text_of(content: Mapping[str, Any], name: str) -> str:
    """Return a text field."""
    value = _field(content, name)
    if not isinstance(value, str):
        raise _wrong(name, value)
    return value


def integer_of(content: Mapping[str, Any], name: str) -> int:
    """Return an integer field of 0 or more."""
    value = _field(content, name)
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise _wrong(name, value)
    return value


def time_of(content: Mapping[str, Any], name: str) -> datetime:
    """Return a field with an RFC 3339 time."""
    text = text_of(content, name)
    try:
        return parse_time(text)
    except ConfigurationError:
        raise _wrong(name, text) from None


def device_of(content: Mapping[str, Any], name: str, key: bytes) -> str:
    """Return the device id, which is also the key of the record."""
    device = text_of(content, name)
    if not device or is_unwritable(device):
        # The bridge rejects such ids, and InfluxDB can't store them.
        raise _wrong(name, device)
    # Comparing bytes also refuses text that can't be encoded.
    if device.encode("utf-8", "surrogatepass") != key:
        raise ForeignRecordError(
            ForeignReason.WRONG_KEY, f"key {key[:_SHOWN]!r}, {name} {device[:_SHOWN]!r}"
        )
    try:
        key.decode()
    except UnicodeDecodeError:
        raise _wrong(name, device) from None
    return device


def _field(content: Mapping[str, Any], name: str) -> Any:
    if name not in content:
        raise ForeignRecordError(ForeignReason.MISSING_FIELD, name)
    return content[name]


def _wrong(name: str, value: object) -> ForeignRecordError:
    try:
        shown = repr(value)[:_SHOWN]
    except (RecursionError, ValueError):
        # For example a deeply nested value, or a number with thousands of digits.
        shown = type(value).__name__
    return ForeignRecordError(ForeignReason.WRONG_VALUE, f"{name} is {shown}")
