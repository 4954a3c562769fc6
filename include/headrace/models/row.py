"""Downsampled rows: one device, one window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from headrace.models.window import WindowRange, parse_time, rfc3339
from headrace.profile import Profile

__all__ = ["PublishedRow", "RowKey", "read_row", "row_content", "row_value", "starts_within"]

#: What identifies a row: the device and the window's start.
RowKey = tuple[str, datetime]

_REVISION = "revision"
_START = b'"window_start":"'
_START_BYTES = len("2026-01-31T12:00:00Z")


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


def row_content(profile: Profile, row: Mapping[str, Any]) -> dict[str, Any]:
    """Make the record of a row, without its revision, from a row of the bucket.

    Parameters
    ----------
    profile
        The kind of device.
    row
        A row of the bucket, as ``rows.flux`` has it: ``_time`` is the window's start.
    """
    start, end = _bounds(row["_time"], profile.window)
    content: dict[str, Any] = {
        profile.id_field: row[profile.id_field],
        "window_start": start,
        "window_end": end,
    }
    for rule in profile.alarms:
        content[rule.writes] = row.get(rule.writes)
    content.update(profile.tags)
    for name in profile.fields:
        content[name] = row.get(name)
    content["readings"] = row.get("readings")
    return content


@lru_cache(maxsize=128)
def _bounds(start: datetime, length: timedelta) -> tuple[str, str]:
    """Start and end of a window as text; it has a row for every device."""
    return rfc3339(start), rfc3339(start + length)


def row_value(content: Mapping[str, Any], revision: int) -> bytes:
    """Value of the record on the topic of rows: flat JSON."""
    return msgspec.json.encode({**content, _REVISION: revision})


def read_row(profile: Profile, value: bytes) -> PublishedRow:
    """Read the value of a record on the topic of rows."""
    content = msgspec.json.decode(value)
    revision = content.pop(_REVISION)
    key = (content[profile.id_field], parse_time(content["window_start"]))
    return PublishedRow(key, revision, content)


def starts_within(windows: WindowRange) -> Callable[[bytes], bool]:
    """Make a function that says whether a record on the topic of rows is about these windows.

    It finds out without reading the rest, for most records are about others. Starts are
    written in one form, so they sort as text; inside a string of the record the quotes would
    be escaped. What is no row of ours is about no window.
    """
    first, end = rfc3339(windows.start).encode(), rfc3339(windows.stop).encode()
    last = rfc3339(windows.stop - windows.length).encode()
    # What the starts have in common is looked for first: most records do not have it.
    common = max(size for size in range(len(first)) if last.startswith(first[:size]))
    begin = _START + first[:common]

    def within(value: bytes) -> bool:
        place = value.find(begin)
        if place < 0:
            return False
        place += len(_START)
        return first <= value[place : place + _START_BYTES] < end

    return within
