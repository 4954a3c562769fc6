"""The windows of a day, each with the one thing that is most to be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from headrace.models.window import WindowRange
from headrace.stages.heal import expected_windows
from headrace.stages.markers import NOT_PUBLISHED, Marker, read_markers
from headrace.stages.pipeline import Pipeline

__all__ = ["DAY", "SETTLING", "StripWindow", "WindowState", "read_strip", "state_of"]

DAY = timedelta(hours=24)
#: A window that closed less long ago is not missing yet.
SETTLING = timedelta(minutes=1)


class WindowState(StrEnum):
    """How a window is, the worst first."""

    MISSING = "missing"
    UNSETTLED = "unsettled"
    QUALITY_FAILED = "quality failed"
    CORRECTED = "corrected"
    COMPLETE = "complete"
    #: It has just closed, and its run is under way.
    DUE = "due"
    #: It was before the installation began, and nobody has computed it.
    NOT_EXPECTED = "not expected"


@dataclass(frozen=True)
class StripWindow:
    """One window of the strip.

    Parameters
    ----------
    start
        Its start.
    state
        How it is.
    marker
        What is known of it; `None` if it was never computed.
    failed
        Names of the quality checks over it that failed.
    """

    start: datetime
    state: WindowState
    marker: Marker | None = None
    failed: tuple[str, ...] = ()


def read_strip(
    until: datetime, now: datetime, installed_at: datetime, pipeline: Pipeline
) -> tuple[StripWindow, ...]:
    """Read the windows of the 24 hours before some moment.

    Two queries, whatever the number of devices.

    Parameters
    ----------
    until
        The end of the 24 hours.
    now
        The time.
    installed_at
        When the installation began: no window before it is expected.
    pipeline
        Profile and clients.
    """
    windows = expected_windows(until - DAY, min(until, now), timedelta(0), pipeline)
    if windows is None:
        return ()
    markers = read_markers(windows, pipeline)
    failed = _failed_checks(windows, pipeline)
    strip = []
    for start in windows.starts():
        marker, checks = markers.get(start), failed.get(start, ())
        state = state_of(
            marker,
            quality_failed=bool(checks),
            expected=start >= installed_at,
            closed_for=now - start - windows.length,
        )
        strip.append(StripWindow(start, state, marker, checks))
    return tuple(strip)


def state_of(
    marker: Marker | None, *, quality_failed: bool, expected: bool, closed_for: timedelta
) -> WindowState:
    """Judge a window.

    Parameters
    ----------
    marker
        What is known of it, if it was computed.
    quality_failed
        Whether a quality check over it failed.
    expected
        Whether the installation had begun when it did.
    closed_for
        How long ago it ended.
    """
    if marker is None or marker.published == NOT_PUBLISHED:
        if closed_for < SETTLING:
            return WindowState.DUE
        return WindowState.MISSING if expected or marker else WindowState.NOT_EXPECTED
    if not marker.settled:
        return WindowState.UNSETTLED
    if quality_failed:
        return WindowState.QUALITY_FAILED
    return WindowState.CORRECTED if marker.revision else WindowState.COMPLETE


def _failed_checks(windows: WindowRange, pipeline: Pipeline) -> Mapping[datetime, tuple[str, ...]]:
    """Names of the failed checks by window; a check is dated with its first window."""
    # A check that began before the range may reach into it.
    params = {"start": windows.start - DAY, "stop": windows.stop}
    found: dict[datetime, tuple[str, ...]] = {}
    for row in pipeline.run("failed_checks.flux", params):
        for index in range(row["windows"]):
            start = row["_time"] + index * windows.length
            found[start] = (*found.get(start, ()), row["check"])
    return found
