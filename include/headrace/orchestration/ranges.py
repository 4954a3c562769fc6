"""Determines the windows of a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from headrace.errors import ConfigurationError
from headrace.models.window import WindowRange, floor, parse_time, rfc3339
from headrace.profile import Profile

__all__ = ["data_interval", "given_range", "run_range"]

_log = structlog.get_logger(__name__)


def run_range(context: Mapping[str, Any], profile: Profile) -> WindowRange:
    """Return the windows of a run from its parameters, otherwise from its data interval.

    The logical date is not used: a manual run has another logical date, or none.

    Raises
    ------
    ConfigurationError
        If the parameters include no window that has ended, or if the run has neither parameters
        nor a data interval.
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
    """Return the data interval of a run; `None` if it is missing or empty."""
    start, stop = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or stop is None or start == stop:
        return None
    # Airflow passes pendulum's times, whose arithmetic differs from datetime's.
    return parse_time(start.isoformat()), parse_time(stop.isoformat())


def given_range(context: Mapping[str, Any], profile: Profile) -> WindowRange | None:
    """Return the windows in the run's parameters, or `None` without parameters.

    The range ends with the last window that had ended when the run was requested: readings
    of later windows are still arriving. A longer range is cut there, with a warning in the
    log.

    Raises
    ------
    ConfigurationError
        If only one of the two is given, or if no window of the range has ended.
    """
    params = context.get("params") or {}
    start, stop = _moment(params.get("start")), _moment(params.get("stop"))
    if start is None and stop is None:
        return None
    if start is None or stop is None:
        msg = "give both start and stop, or neither"
        raise ConfigurationError(msg)
    first, last = floor(start, profile.window), floor(stop, profile.window)
    if last != stop:
        # A stop inside a window includes that whole window.
        last += profile.window
    if first >= last:
        msg = f"start {rfc3339(start)} must be before stop {rfc3339(stop)}"
        raise ConfigurationError(msg)
    ended = floor(_requested_at(context), profile.window)
    if first >= ended:
        msg = (
            f"start {rfc3339(start)} is in the future: the last window that has ended stops at "
            f"{rfc3339(ended)}. Choose an earlier start"
        )
        raise ConfigurationError(msg)
    if last > ended:
        _log.warning(
            "range cut at the last window that has ended", stop=rfc3339(stop), used=rfc3339(ended)
        )
        last = ended
    return WindowRange(first, last, profile.window)


def _requested_at(context: Mapping[str, Any]) -> datetime:
    """Return the time of the request, which is the same for all tasks and tries of a run."""
    moment = getattr(context.get("dag_run"), "run_after", None)
    now = datetime.now(UTC)
    return min(now, parse_time(moment.isoformat())) if moment is not None else now


def _moment(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    return parse_time(str(value))
