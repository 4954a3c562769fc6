"""Rows: the values of one device for one window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from headrace.models.window import rfc3339
from headrace.profile import Profile

__all__ = ["READINGS", "PublishedRow", "RowKey", "StoredRow", "row_content"]

#: Key of a row: device and start of the window.
RowKey = tuple[str, datetime]

#: Field with the number of readings of a row.
READINGS = "readings"


@dataclass(frozen=True)
class StoredRow:
    """A stored row.

    Parameters
    ----------
    device
        The device.
    start
        Start of the window.
    values
        Values by name: fields, levels and `READINGS`. Missing values are absent or `None`.
    """

    device: str
    start: datetime
    values: Mapping[str, Any]

    @property
    def key(self) -> RowKey:
        """Key of the row."""
        return self.device, self.start


@dataclass(frozen=True)
class PublishedRow:
    """A published row.

    Parameters
    ----------
    key
        Device and window.
    revision
        0 for the first version; each correction adds 1.
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
    """Return start and end of a window as text, cached because all devices share them."""
    return rfc3339(start), rfc3339(start + length)
