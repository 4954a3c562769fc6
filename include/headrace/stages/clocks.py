"""Compares the clock of this task with the clock of InfluxDB.

With a fast clock, a task would compute windows before they end. They would look empty, and every
device would look silent. So the earlier of the two times is used. A slow clock only delays
windows.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from headrace.errors import RangeNotOverError
from headrace.models.window import WindowRange, rfc3339
from headrace.stages.pipeline import Pipeline

__all__ = ["Clocks", "await_end", "earlier_clock", "read_clocks"]

_log = structlog.get_logger(__name__)

#: Larger differences between the clocks are reported.
_TOLERANCE = timedelta(seconds=5)


class Clocks(NamedTuple):
    """The times of the clocks of this task and of InfluxDB."""

    own: datetime
    server: datetime

    @property
    def earlier(self) -> datetime:
        """The earlier time, by which an ended window has certainly ended."""
        return min(self)

    @property
    def later(self) -> datetime:
        """The later time, by which raw readings may already be deleted."""
        return max(self)


def read_clocks(pipeline: Pipeline) -> Clocks:
    """Read both clocks; log a warning if they differ by more than a few seconds."""
    clocks = Clocks(pipeline.clock(), pipeline.store.now())
    if clocks.later - clocks.earlier > _TOLERANCE:
        _log.warning(
            "clocks differ",
            task=rfc3339(clocks.own),
            influxdb=rfc3339(clocks.server),
            seconds=round((clocks.own - clocks.server).total_seconds(), 3),
        )
    return clocks


def earlier_clock(pipeline: Pipeline) -> datetime:
    """Return the earlier of the two clocks; see `read_clocks`."""
    return read_clocks(pipeline).earlier


def await_end(windows: WindowRange, clocks: Clocks) -> None:
    """Wait until a range has ended by both clocks, for a few seconds at most.

    Raises
    ------
    RangeNotOverError
        If it takes longer.
    """
    left = windows.stop - clocks.earlier
    if left > _TOLERANCE:
        msg = (
            f"{windows} is not over by the clocks of this task ({rfc3339(clocks.own)}) and of "
            f"InfluxDB ({rfc3339(clocks.server)}): {left} are left. If the time is wrong, set "
            "the clock"
        )
        raise RangeNotOverError(msg)
    if left > timedelta(0):
        time.sleep(left.total_seconds())
