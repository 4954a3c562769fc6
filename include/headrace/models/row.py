"""Downsampled rows: the values of one device in one window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from headrace.models.own_json import device_of, integer_of, object_of, time_of
from headrace.models.window import WindowRange, rfc3339
from headrace.profile import Profile

__all__ = [
    "READINGS",
    "PublishedRow",
    "RowKey",
    "StoredRow",
    "read_row",
    "row_content",
    "row_value",
    "starts_within",
]

#: What identifies a row: the device and the window's start.
RowKey = tuple[str, datetime]

#: The field that every row has: the number of readings that it was computed from.
READINGS = "readings"
_REVISION = "revision"
_START = b'"window_start":"'
_START_BYTES = len("2026-01-31T12:00:00Z")


@dataclass(frozen=True)
class StoredRow:
    """A row as it is stored.

    Parameters
    ----------
    device
        The device.
    start
        Start of the window.
    values
        Values by name: fields, levels and `READINGS`. What the row lacks is absent or `None`.
    """

    device: str
    start: datetime
    values: Mapping[str, Any]

    @property
    def key(self) -> RowKey:
        """What identifies the row."""
        return self.device, self.start


@dataclass(frozen=True)
class PublishedRow:
    """A row as consumers have it.

    Parameters
    ----------
    key
        Device and window.
    revision
        0 for the first, one more with each correction.
    content
        The record without its revision.
    """

    key: RowKey
    revision: int
    content: Mapping[str, Any]


def row_content(profile: Profile, row: StoredRow) -> dict[str, Any]:
    """Convert a stored row to the record of a row, without its revision.

    Parameters
    ----------
    profile
        The kind of device.
    row
        The stored row.
    """
    start, end = _bounds(row.start, profile.window)
    content: dict[str, Any] = {
        profile.id_field: row.device,
        "window_start": start,
        "window_end": end,
    }
    for rule in profile.alarms:
        content[rule.writes] = row.values.get(rule.writes)
    content.update(profile.tags)
    for name in profile.fields:
        content[name] = row.values.get(name)
    content[READINGS] = row.values.get(READINGS)
    return content


@lru_cache(maxsize=128)
def _bounds(start: datetime, length: timedelta) -> tuple[str, str]:
    """Return start and end of a window as text. Every device has a row in it."""
    return rfc3339(start), rfc3339(start + length)


def row_value(content: Mapping[str, Any], revision: int) -> bytes:
    """Return the value of a record on the topic of rows: flat JSON."""
    return msgspec.json.encode({**content, _REVISION: revision})


def read_row(profile: Profile, key: bytes, value: bytes) -> PublishedRow:
    """Parse a record on the topic of rows.

    Raises
    ------
    ForeignRecordError
        If Headrace did not write it.
    """
    content = object_of(value)
    row_key = device_of(content, profile.id_field, key), time_of(content, "window_start")
    revision = integer_of(content, _REVISION)
    del content[_REVISION]
    return PublishedRow(row_key, revision, content)


def starts_within(windows: WindowRange) -> Callable[[bytes], bool]:
    """Return a function that tells whether a record on the topic of rows is about these windows.

    It does not parse the record, because most records are about other windows. Starts are
    written in one form, so they sort as text. Inside a JSON string the quotes would be
    escaped. A record that is not a row is about no window.
    """
    first, end = rfc3339(windows.start).encode(), rfc3339(windows.stop).encode()
    last = rfc3339(windows.stop - windows.length).encode()
    # Look for the common beginning of the starts first: most records do not have it.
    common = max(size for size in range(len(first)) if last.startswith(first[:size]))
    begin = _START + first[:common]

    def within(value: bytes) -> bool:
        place = value.find(begin)
        if place < 0:
            return False
        place += len(_START)
        return first <= value[place : place + _START_BYTES] < end

    return within
