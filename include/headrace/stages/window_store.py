"""The store of readings, rows and markers, as the stages see it.

The stages say what they want of windows. How it is stored, and in which query language it is
asked for, is a matter of the store: `headrace.storage.influx_windows` has the only one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from headrace.models.alarm import AlarmChange, PublishedChange
from headrace.models.marker import Marker
from headrace.models.row import StoredRow
from headrace.models.window import WindowRange
from headrace.profile_rules import AlarmRule

__all__ = ["Neighbours", "Values", "WindowStore"]

#: By device: start of a window, and the value of a field in its row.
Values = Mapping[str, tuple[datetime, Any]]


@dataclass(frozen=True)
class Neighbours:
    """By field of the rows: the last values before a range, and the first ones after it."""

    before: Mapping[str, Values]
    after: Mapping[str, Values]


class WindowStore(Protocol):
    """Readings, rows, markers and active alarms of one kind of device.

    Every method raises `headrace.errors.TransientError` if the store is unavailable, and
    `headrace.errors.PermanentError` if it refuses the request.
    """

    def now(self) -> datetime:
        """Return the time by the clock of the store's server."""

    def count_raw(self, windows: WindowRange) -> dict[datetime, int]:
        """Count the raw readings of each window; windows without readings are left out."""

    def claim(self, windows: WindowRange, run: str) -> None:
        """Mark windows as being computed by a run, and clear them for it.

        A claimed window is not computed and not published. A run that dies leaves it so; the
        next reconcile finds it. Rows that computing again would not replace are deleted.
        """

    def downsample(self, windows: WindowRange) -> dict[datetime, int]:
        """Compute and store the rows of windows.

        Returns
        -------
        dict
            By window: its number of rows. Windows without rows are left out.
        """

    def evaluate(self, rule: AlarmRule, windows: WindowRange) -> int:
        """Store the level of every row under a rule; return how many rows got one."""

    def rows(self, windows: WindowRange) -> list[StoredRow]:
        """Return the rows of windows, by time."""

    def neighbours(
        self, windows: WindowRange, fields: Sequence[str], since: datetime
    ) -> Neighbours:
        """Return the values next to a range, of every device: back to a time, ahead to the end."""

    def last_values(
        self, fields: Sequence[str], start: datetime, stop: datetime
    ) -> dict[str, Values]:
        """Return by field the last value of every device in ``[start, stop)``."""

    def first_values(self, field: str, start: datetime) -> Values:
        """Return the first value of every device from a time on."""

    def devices_with_raw(self, start: datetime, stop: datetime) -> set[str]:
        """Return the devices that have raw readings in ``[start, stop)``."""

    def markers(self, windows: WindowRange) -> dict[datetime, Marker]:
        """Return the markers of computed windows, by their start.

        A window that was only claimed is not computed.
        """

    def record_computed(self, markers: Collection[Marker]) -> None:
        """Store the markers of computed windows, over existing ones."""

    def record_published(
        self, rows: Mapping[datetime, int], revisions: Mapping[datetime, int]
    ) -> None:
        """Store the number of published rows of each window, and their highest revision."""

    def record_changes(self, changes: Collection[PublishedChange]) -> None:
        """Store published alarm changes, over earlier revisions of them."""

    def active_alarms(self, start: datetime, stop: datetime) -> list[AlarmChange]:
        """Return the changes of ``[start, stop)`` that raised an alarm which is still active."""
