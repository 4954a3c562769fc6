"""The time by two clocks: the one of this task and the one of InfluxDB.

A clock that is ahead must not compute windows that are not over: they would look empty, and
every device would look silent. One clock can't show that it is wrong, so the earlier of two
counts. A clock that is behind only makes windows late.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import structlog

from headrace.errors import RangeNotOverError
from headrace.models.window import WindowRange, rfc3339
from headrace.stages.pipeline import Pipeline

__all__ = ["await_end", "earlier_clock"]

_log = structlog.get_logger(__name__)

#: Clocks that differ by more are reported.
_TOLERANCE = timedelta(seconds=5)


def earlier_clock(pipeline: Pipeline) -> datetime:
    """Return the earlier of this task's time and InfluxDB's; report a large difference."""
    own = pipeline.clock()
    (row,) = pipeline.run("server_time.flux", {})
    server: datetime = row["_time"]
    if abs(own - server) > _TOLERANCE:
        _log.warning(
            "clocks differ",
            task=rfc3339(own),
            influxdb=rfc3339(server),
            seconds=round((own - server).total_seconds(), 3),
        )
    return min(own, server)


def await_end(windows: WindowRange, pipeline: Pipeline) -> None:
    """Wait until a range is over by both clocks, for a few seconds at most.

    Raises
    ------
    RangeNotOverError
        If it takes longer.
    """
    left = windows.stop - earlier_clock(pipeline)
    if left > _TOLERANCE:
        msg = (
            f"{windows} is not over by the clocks of this task ({rfc3339(pipeline.clock())}) and "
            f"of InfluxDB: {left} are left. If the time is wrong, set the clock"
        )
        raise RangeNotOverError(msg)
    if left > timedelta(0):
        time.sleep(left.total_seconds())
