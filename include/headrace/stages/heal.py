"""Finds the windows that have to be computed, also again."""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.models.marker import Marker
from headrace.models.window import WindowRange, floor, whole_windows
from headrace.stages.pipeline import Pipeline
from headrace.stages.ranges import cut_windows

__all__ = ["expected_windows", "missing_windows", "windows_to_heal"]


def expected_windows(
    begin: datetime, now: datetime, settling: timedelta, pipeline: Pipeline
) -> WindowRange | None:
    """Return the windows after some time that should be computed by now.

    Windows whose raw readings may be deleted are left out, because they can't be computed.

    Parameters
    ----------
    begin
        Earlier windows are left out.
    now
        The current time.
    settling
        Time after a window's end during which it is left to its live run.
    pipeline
        Profile and clients.

    Returns
    -------
    WindowRange or None
        `None` if there is no such window yet.
    """
    length = pipeline.profile.window
    begin = max(begin, _oldest_start(now, length, pipeline))
    return whole_windows(begin, now - settling, length)


def missing_windows(
    windows: WindowRange, installed_at: datetime, markers: dict[datetime, Marker]
) -> list[datetime]:
    """Return the starts of windows that should be computed and published but are not."""
    return [
        start
        for start in windows.starts()
        if start >= installed_at and (start not in markers or markers[start].published < 0)
    ]


def windows_to_heal(
    windows: WindowRange, installed_at: datetime, pipeline: Pipeline
) -> list[WindowRange]:
    """Find windows that are missing, unsettled, unpublished or changed by late readings.

    It compares the number of raw readings in each window with the markers. That takes two
    queries for a range of any length.

    Parameters
    ----------
    windows
        The range to search.
    installed_at
        Earlier windows are only included if they have readings.
    pipeline
        Profile and clients.

    Returns
    -------
    list of WindowRange
        In order; see `headrace.stages.ranges.cut_windows`.
    """
    now = pipeline.clock()
    oldest = _oldest_start(now, windows.length, pipeline)
    newest = floor(now, windows.length)
    if max(windows.start, oldest) >= min(windows.stop, newest):
        return []
    windows = WindowRange(max(windows.start, oldest), min(windows.stop, newest), windows.length)
    readings = pipeline.store.count_raw(windows)
    markers = pipeline.store.markers(windows)
    wanted = set(missing_windows(windows, installed_at, markers))
    for start in windows.starts():
        marker = markers.get(start)
        present = readings.get(start, 0)
        if marker is None:
            if present:
                wanted.add(start)
        elif not marker.settled or marker.readings != present or marker.published != marker.rows:
            wanted.add(start)
    return cut_windows(wanted, windows.length)


def _oldest_start(now: datetime, length: timedelta, pipeline: Pipeline) -> datetime:
    """Return the start of the first window whose raw readings are all kept."""
    return floor(now - pipeline.raw_retention, length) + length
