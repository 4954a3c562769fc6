"""The interface of the quality checks' store: counts, and results of checks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from headrace.models.quality import CheckResult
from headrace.models.window import WindowRange

__all__ = ["DeviceTotals", "FailedCheck", "QualityStore", "WindowTotals"]


@dataclass(frozen=True)
class DeviceTotals:
    """Number of rows and of their readings, by device."""

    windows: dict[str, int]
    readings: dict[str, int]


@dataclass(frozen=True)
class WindowTotals:
    """Number of rows and of their readings, by window."""

    rows: dict[datetime, int]
    readings: dict[datetime, int]


@dataclass(frozen=True)
class FailedCheck:
    """A failed check: its name, and the start and number of windows of its range."""

    name: str
    start: datetime
    windows: int


class QualityStore(Protocol):
    """Counts of readings and rows, and the results of checks.

    Methods raise the same errors as `headrace.stages.window_store.WindowStore`.
    """

    def windows_with_rows(self, start: datetime, stop: datetime) -> dict[str, int]:
        """Return the number of windows with a row, by device."""

    def totals_by_device(self, windows: WindowRange) -> DeviceTotals:
        """Count rows and readings of each device."""

    def totals_by_window(self, windows: WindowRange) -> WindowTotals:
        """Count rows and readings of each window."""

    def out_of_range(
        self, windows: WindowRange, field: str, low: float, high: float
    ) -> dict[str, int]:
        """Return the number of values of a field outside a range, by device."""

    def newest_reading(self, start: datetime, stop: datetime) -> datetime | None:
        """Return the time of the newest raw reading in ``[start, stop)``."""

    def record_checks(self, windows: WindowRange, results: Collection[CheckResult]) -> None:
        """Store the results of the checks of a range."""

    def failed_checks(self, start: datetime, stop: datetime) -> list[FailedCheck]:
        """Return the failed checks whose range starts in ``[start, stop)``."""
