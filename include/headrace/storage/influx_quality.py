"""The counts and results of quality checks in InfluxDB 2.7."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from headrace.models.device_time import epoch_ns
from headrace.models.quality import CheckResult
from headrace.models.window import WindowRange
from headrace.stages.quality_store import DeviceTotals, FailedCheck, WindowTotals
from headrace.storage.flux_files import FluxFiles, range_params
from headrace.storage.flux_values import FluxValue
from headrace.storage.line_protocol import point_line

__all__ = ["InfluxQualityStore"]

_CHECK = "check"


class InfluxQualityStore:
    """Implements `headrace.stages.quality_store.QualityStore`.

    Parameters
    ----------
    flux
        The Flux files, and the profile.
    """

    def __init__(self, flux: FluxFiles) -> None:
        self._flux = flux
        self._id = flux.profile.id_field

    def windows_with_rows(self, start: datetime, stop: datetime) -> dict[str, int]:
        """Return by device the number of its windows with a row."""
        rows = self._flux.run("windows_by_device.flux", {"start": start, "stop": stop})
        return {row[self._id]: row["_value"] for row in rows}

    def totals_by_device(self, windows: WindowRange) -> DeviceTotals:
        """Count rows and readings of each device."""
        found: dict[str, dict[str, int]] = {"windows": {}, "readings": {}}
        for row in self._flux.run("readings_by_device.flux", range_params(windows)):
            found[row["result"]][row[self._id]] = row["_value"]
        return DeviceTotals(found["windows"], found["readings"])

    def totals_by_window(self, windows: WindowRange) -> WindowTotals:
        """Count rows and readings of each window."""
        found: dict[str, dict[datetime, int]] = {"rows": {}, "readings": {}}
        for row in self._flux.run("count_rows.flux", range_params(windows)):
            found[row["result"]][row["_time"]] = row["_value"]
        return WindowTotals(found["rows"], found["readings"])

    def out_of_range(
        self, windows: WindowRange, field: str, low: float, high: float
    ) -> dict[str, int]:
        """Return by device the number of values of a field outside a range."""
        params = {**range_params(windows), "field": field, "low": low, "high": high}
        return {row[self._id]: row["_value"] for row in self._flux.run("out_of_range.flux", params)}

    def newest_reading(self, start: datetime, stop: datetime) -> datetime | None:
        """Return the time of the newest raw reading."""
        params: dict[str, FluxValue] = {
            "start": start,
            "stop": stop,
            "counted": self._flux.profile.counted_field,
        }
        return next((row["_time"] for row in self._flux.run("newest_raw.flux", params)), None)

    def record_checks(self, windows: WindowRange, results: Collection[CheckResult]) -> None:
        """Store results, with the time of the range's start."""
        self._flux.write_quality(
            point_line(
                _CHECK,
                {"check": result.name},
                {
                    "value": float(result.value),
                    "warn": float(result.warn),
                    "fail": float(result.fail),
                    "verdict": result.verdict.value,
                    "detail": result.detail,
                    "windows": len(windows),
                },
                epoch_ns(windows.start),
            )
            for result in results
        )

    def failed_checks(self, start: datetime, stop: datetime) -> list[FailedCheck]:
        """Return the failed checks."""
        return [
            FailedCheck(row["check"], row["_time"], row["windows"])
            for row in self._flux.run("failed_checks.flux", {"start": start, "stop": stop})
        ]
