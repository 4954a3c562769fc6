"""What the quality checks need of the store: counts, and a place for their results."""

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
    """By device: its windows with a row, and the readings they were computed from."""

    windows: dict[str, int]
    readings: dict[str, int]


@dataclass(frozen=True)
class WindowTotals:
    """By window: its rows, and the readings they were computed from."""

    rows: dict[datetime, int]
    readings: dict[datetime, int]


@dataclass(frozen=True)
class FailedCheck:
    """A check that failed: its name, the start of its range, and how many windows that has."""

    name: str
    start: datetime
    windows: int


class QualityStore(Protocol):
    """Counts of readings and rows, and the results of checks.

    Methods raise what those of `headrace.stages.window_store.WindowStore` raise.
    """

    def windows_with_rows(self, start: datetime, stop: datetime) -> dict[str, int]:
        """Return by device the number of its windows with a row."""

    def totals_by_device(self, windows: WindowRange) -> DeviceTotals:
        """Count rows and readings of each device."""

    def totals_by_window(self, windows: WindowRange) -> WindowTotals:
        """Count rows and readings of each window."""

    def out_of_range(
        self, windows: WindowRange, field: str, low: float, high: float
    ) -> dict[str, int]:
        """Return by device the number of values of a field outside a range, if there are any."""

    def newest_reading(self, start: datetime, stop: datetime) -> datetime | None:
        """Return the time of the newest raw reading in ``[start, stop)``."""

    def record_checks(self, windows: WindowRange, results: Collection[CheckResult]) -> None:
        """Store the results of the checks of a range."""

    def failed_checks(self, start: datetime, stop: datetime) -> list[FailedCheck]:
        """Return the failed checks whose ranges begin in ``[start, stop)``."""
