"""The records on the topic of rows: flat JSON, one record per device and window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.models.row import PublishedRow
from headrace.models.window import WindowRange, rfc3339
from headrace.profile import Profile
from headrace.storage.own_json import device_of, integer_of, object_of, time_of

__all__ = ["read_row", "row_value", "starts_within"]

_REVISION = "revision"
_START = b'"window_start":"'
_START_BYTES = len("2026-01-31T12:00:00Z")


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
    """Return a function that checks whether a record is a row of these windows.

    It does not parse the record, because most records are of other windows. Starts have a fixed
    format, so they sort as text. Inside a JSON string the quotes would be escaped. A record that
    is not a row is of no window.
    """
    first, end = rfc3339(windows.start).encode(), rfc3339(windows.stop).encode()
    last = rfc3339(windows.stop - windows.length).encode()
    # Search for the common prefix of the starts first, which most records do not have.
    common = max(size for size in range(len(first)) if last.startswith(first[:size]))
    begin = _START + first[:common]

    def within(value: bytes) -> bool:
        place = value.find(begin)
        if place < 0:
            return False
        place += len(_START)
        return first <= value[place : place + _START_BYTES] < end

    return within
