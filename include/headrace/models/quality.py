"""Results of quality checks: measured values compared with their levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from headrace.profile import Thresholds

__all__ = ["CheckResult", "Verdict", "judge", "report_table"]

#: Maximum number of devices that a mail names; for others it has only the number.
_NAMED_DEVICES = 20


class Verdict(StrEnum):
    """Result of comparing a measured value with its levels."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Parameters
    ----------
    name
        Name of the check in the profile.
    value
        The measured value: a share from 0 to 1, a number, or seconds for ages.
    warn, fail
        Levels, in the same unit.
    verdict
        Result of the comparison.
    detail
        The counted numbers, as text.
    devices
        Devices that caused the verdict.
    """

    name: str
    value: float
    warn: float
    fail: float
    verdict: Verdict
    detail: str
    devices: tuple[str, ...] = ()


def judge(
    name: str,
    value: float | None,
    levels: Thresholds,
    detail: str,
    *,
    low_is_bad: bool,
    devices: Sequence[str] = (),
) -> CheckResult:
    """Compare a measured value with its levels; without a value there is no verdict."""
    warn, fail = _number(levels.warn), _number(levels.fail)
    if value is None:
        verdict = Verdict.NOT_JUDGED
    elif value < fail if low_is_bad else value > fail:
        verdict = Verdict.FAIL
    elif value < warn if low_is_bad else value > warn:
        verdict = Verdict.WARN
    else:
        verdict = Verdict.OK
    measured = 0.0 if value is None else value
    return CheckResult(name, measured, warn, fail, verdict, detail, tuple(devices))


def report_table(results: Sequence[CheckResult]) -> str:
    """Format the results as a plain-text table."""
    rows = [("check", "verdict", "measured", "warn at", "fail at", "what was counted")]
    rows += [
        (
            result.name,
            result.verdict.value,
            "-" if result.verdict is Verdict.NOT_JUDGED else f"{result.value:.4g}",
            f"{result.warn:g}",
            f"{result.fail:g}",
            result.detail + _named(result.devices),
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _named(devices: Sequence[str]) -> str:
    if not devices:
        return ""
    more = len(devices) - _NAMED_DEVICES
    names = ", ".join(devices[:_NAMED_DEVICES])
    return f": {names}" + (f" and {more} more" if more > 0 else "")


def _number(level: float | timedelta) -> float:
    return level.total_seconds() if isinstance(level, timedelta) else float(level)
