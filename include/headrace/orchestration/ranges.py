"""Which windows a run is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headrace.errors import ConfigurationError
from headrace.models.window import WindowRange, floor, parse_time
from headrace.profile import Profile

__all__ = ["data_interval", "given_range", "run_range"]


def run_range(context: Mapping[str, Any], profile: Profile) -> WindowRange:
    """Windows of a run: those its parameters name, or else those of its data interval.

    Keyed on the data interval and never on the logical date, which for a run that
    somebody starts by hand is another minute, or none.

    Raises
    ------
    ConfigurationError
        If the parameters are no range of windows, or the run has neither.
    """
    given = given_range(context, profile)
    if given is not None:
        return given
    interval = data_interval(context)
    if interval is None:
        msg = "this run has no data interval: start it with the parameters start and stop"
        raise ConfigurationError(msg)
    start, stop = (floor(moment, profile.window) for moment in interval)
    return WindowRange(start, stop, profile.window)


def data_interval(context: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Data interval of a run, if it has one that is not empty."""
    start, stop = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or stop is None or start == stop:
        return None
    # Airflow's moments are pendulum's, whose arithmetic is not that of datetime.
    return parse_time(start.isoformat()), parse_time(stop.isoformat())


def given_range(context: Mapping[str, Any], profile: Profile) -> WindowRange | None:
    """Windows that the run's parameters name, or `None` if they name none."""
    params = context.get("params") or {}
    start, stop = _moment(params.get("start")), _moment(params.get("stop"))
    if start is None and stop is None:
        return None
    if start is None or stop is None:
        msg = "give both start and stop, or neither"
        raise ConfigurationError(msg)
    last = floor(stop, profile.window)
    return WindowRange(
        floor(start, profile.window),
        # A stop in the middle of a window means the whole of that window.
        last if last == stop else last + profile.window,
        profile.window,
    )


def _moment(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    return parse_time(str(value))
