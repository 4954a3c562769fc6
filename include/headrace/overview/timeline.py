"""The windows of a day, each with its worst state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from headrace.models.marker import NOT_PUBLISHED, Marker
from headrace.models.window import WindowRange, whole_windows
from headrace.stages.pipeline import Pipeline

__all__ = ["DAY", "SETTLING", "TimelineWindow", "WindowState", "read_timeline", "state_of"]

DAY = timedelta(hours=24)
#: Time after a window's end before it counts as missing.
SETTLING = timedelta(minutes=1)


class WindowState(StrEnum):
    """State of a window; the worst state is first."""

    MISSING = "missing"
    UNSETTLED = "unsettled"
    QUALITY_FAILED = "quality failed"
    CORRECTED = "corrected"
    COMPLETE = "complete"
    #: The window has just ended, and its run is active.
    DUE = "due"
    #: The window is older than the installation and was not computed.
    NOT_EXPECTED = "not expected"


@dataclass(frozen=True)
class TimelineWindow:
    """One window of the timeline.

    Parameters
    ----------
    start
        Start of the window.
    state
        State of the window.
    marker
        Marker of the window; `None` if it was never computed.
    failed
        Names of the failed quality checks that cover the window.
    """

    start: datetime
    state: WindowState
    marker: Marker | None = None
    failed: tuple[str, ...] = ()


def read_timeline(
    until: datetime, now: datetime, installed_at: datetime, pipeline: Pipeline
) -> tuple[TimelineWindow, ...]:
    """Read the windows of 24 hours, with two queries for any number of devices.

    Parameters
    ----------
    until
        The end of the 24 hours.
    now
        The current time.
    installed_at
        Start of the installation: no earlier window is expected.
    pipeline
        Profile and clients.
    """
    windows = whole_windows(until - DAY, min(until, now), pipeline.profile.window)
    if windows is None:
        return ()
    markers = pipeline.store.markers(windows)
    failed = _failed_checks(windows, pipeline)
    timeline = []
    for start in windows.starts():
        marker, checks = markers.get(start), failed.get(start, ())
        state = state_of(
            marker,
            quality_failed=bool(checks),
            expected=start >= installed_at,
            closed_for=now - start - windows.length,
        )
        timeline.append(TimelineWindow(start, state, marker, checks))
    return tuple(timeline)


def state_of(
    marker: Marker | None, *, quality_failed: bool, expected: bool, closed_for: timedelta
) -> WindowState:
    """Return the state of a window.

    Parameters
    ----------
    marker
        Marker of the window, if it was computed.
    quality_failed
        Whether a failed quality check covers the window.
    expected
        Whether the window started after the installation date.
    closed_for
        Time since the window's end.
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
    """Return the names of the failed checks by window."""
    # A check has the time of its first window, so an earlier check can reach into the range.
    found: dict[datetime, tuple[str, ...]] = {}
    for check in pipeline.quality.failed_checks(windows.start - DAY, windows.stop):
        for index in range(check.windows):
            start = check.start + index * windows.length
            found[start] = (*found.get(start, ()), check.name)
    return found
