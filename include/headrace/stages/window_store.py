"""The interface of the store of readings, rows and markers.

The methods are operations on windows. Storage format and query language are details of the
implementation, `headrace.storage.influx_windows`.
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

#: Start of a window and value of a field in its row, by device.
Values = Mapping[str, tuple[datetime, Any]]


@dataclass(frozen=True)
class Neighbours:
    """The last values before a range and the first values after it, by field of the rows."""

    before: Mapping[str, Values]
    after: Mapping[str, Values]


class WindowStore(Protocol):
    """Readings, rows, markers and active alarms of one kind of device.

    Every method raises `headrace.errors.TransientError` if the store is unavailable, and
    `headrace.errors.PermanentError` if it refuses the request.
    """

    def now(self) -> datetime:
        """Return the time of the store's server."""

    def count_raw(self, windows: WindowRange) -> dict[datetime, int]:
        """Return the number of raw readings of each window that has any."""

    def claim(self, windows: WindowRange, run: str) -> None:
        """Mark windows as being computed by a run and delete their old results.

        A claimed window counts as neither computed nor published. If the run dies, the next
        reconcile run finds it. Rows that a new computation would not replace are deleted.
        """

    def downsample(self, windows: WindowRange) -> dict[datetime, int]:
        """Compute and store the rows of windows.

        Returns
        -------
        dict
            Number of rows of each window that has any.
        """

    def evaluate(self, rule: AlarmRule, windows: WindowRange) -> int:
        """Store the level of every row for a rule; return the number of rows with a level."""

    def rows(self, windows: WindowRange) -> list[StoredRow]:
        """Return the rows of windows, by time."""

    def neighbours(
        self, windows: WindowRange, fields: Sequence[str], since: datetime
    ) -> Neighbours:
        """Return every device's values next to a range, from a time before it to the end."""

    def last_values(
        self, fields: Sequence[str], start: datetime, stop: datetime
    ) -> dict[str, Values]:
        """Return the last value of every device in ``[start, stop)``, by field."""

    def first_values(self, field: str, start: datetime) -> Values:
        """Return the first value of every device from a time on."""

    def devices_with_raw(self, start: datetime, stop: datetime) -> set[str]:
        """Return the devices with raw readings in ``[start, stop)``."""

    def markers(self, windows: WindowRange) -> dict[datetime, Marker]:
        """Return the markers of computed windows by start.

        A claimed window is not included.
        """

    def record_computed(self, markers: Collection[Marker]) -> None:
        """Store the markers of computed windows; replace existing ones."""

    def record_published(
        self, rows: Mapping[datetime, int], revisions: Mapping[datetime, int]
    ) -> None:
        """Store the number of published rows of each window and their highest revision."""

    def record_changes(self, changes: Collection[PublishedChange]) -> None:
        """Store published alarm changes; replace earlier revisions."""

    def active_alarms(self, start: datetime, stop: datetime) -> list[AlarmChange]:
        """Return the changes in ``[start, stop)`` that raised a still active alarm."""
