"""Finding the windows that have to be computed (again)."""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.models.window import WindowRange, floor, pieces_of
from headrace.stages.downsample import count_raw
from headrace.stages.markers import Marker, read_markers
from headrace.stages.pipeline import Pipeline

__all__ = ["PIECE", "expected_windows", "missing_windows", "windows_to_heal"]

#: Windows that are healed at once: an hour of minutes costs little more than one window.
PIECE = 60


def expected_windows(
    begin: datetime, now: datetime, settling: timedelta, pipeline: Pipeline
) -> WindowRange | None:
    """Windows from some moment on that should be computed by now.

    Parameters
    ----------
    begin
        No window before it is looked at.
    now
        The time.
    settling
        How long after its end a window is still left to its own live run.
    pipeline
        Profile and clients.

    Returns
    -------
    WindowRange or None
        `None` if there is no such window yet.
    """
    length = pipeline.profile.window
    # A window that had begun already could never be whole.
    start = floor(begin + length - timedelta(microseconds=1), length)
    stop = floor(now - settling, length)
    return WindowRange(start, stop, length) if start < stop else None


def missing_windows(
    windows: WindowRange, installed_at: datetime, markers: dict[datetime, Marker]
) -> list[datetime]:
    """Starts of windows that should be computed and published, and are not."""
    return [
        start
        for start in windows.starts()
        if start >= installed_at and (start not in markers or markers[start].published < 0)
    ]


def windows_to_heal(
    windows: WindowRange, installed_at: datetime, pipeline: Pipeline
) -> list[WindowRange]:
    """Find what is missing, unsettled, unpublished, or was changed by late readings.

    Two pushed-down queries, however long the range is: raw readings a window, against
    what the markers say.

    Parameters
    ----------
    windows
        Where to look.
    installed_at
        Before it a window is only wanted if it holds readings.
    pipeline
        Profile and clients.

    Returns
    -------
    list of WindowRange
        In order, each of at most `PIECE` windows. What lies between two of them is computed
        with them: that costs less than another piece, and changes nothing.
    """
    oldest = floor(pipeline.oldest_raw(), windows.length) + windows.length
    if oldest >= windows.stop:
        return []
    windows = WindowRange(max(windows.start, oldest), windows.stop, windows.length)
    readings = count_raw(windows, pipeline)
    markers = read_markers(windows, pipeline)
    wanted = set(missing_windows(windows, installed_at, markers))
    for start in windows.starts():
        marker = markers.get(start)
        present = readings.get(start, 0)
        if marker is None:
            if present:
                wanted.add(start)
        elif not marker.settled or marker.readings != present or marker.published != marker.rows:
            wanted.add(start)
    return pieces_of(wanted, windows.length, PIECE)
