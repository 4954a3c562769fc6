"""Creates the DAGs with common arguments, and derives their schedules from the profile."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from headrace.errors import ConfigurationError
from headrace.models.window import floor, rfc3339
from headrace.orchestration.connections import task_settings
from headrace.orchestration.policies import CLEANUP, longest_run, longest_wait, retry_table
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.stages.ranges import installed_at_problem

__all__ = [
    "cleanup_dag",
    "cron_every",
    "quality_dag",
    "quality_dag_id",
    "quality_interval",
    "reconcile_dag",
    "reconcile_dag_id",
    "windows_dag",
    "windows_dag_id",
]

_OWNER = "headrace"
_RETRIES = "**Retries** of each stage, as the profile's entry `retries` sets them:"
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
#: Live runs that can be active besides those that wait for the sink, because they retry. There
#: are more if a run can retry for longer than this number of windows.
_RETRYING_RUNS = 8
_MOST_RETRYING_RUNS = 60
_LIVE_STAGES = ("await_ingest", "downsample", "evaluate_alarms", "republish")
_HEAL_STAGES = ("await_ingest", "find", "downsample", "evaluate_alarms", "republish")
_QUALITY_STAGES = ("check_quality",)


def windows_dag_id(profile: Profile) -> str:
    """Return the id of the DAG for live windows."""
    return f"{profile.name}_windows"


def reconcile_dag_id(profile: Profile) -> str:
    """Return the id of the DAG that heals."""
    return f"{profile.name}_reconcile"


def quality_dag_id(profile: Profile) -> str:
    """Id of the DAG of the quality checks."""
    return f"{profile.name}_quality"


def windows_dag(doc: str) -> DAG:
    """Create the DAG for live windows: one run for each window, as soon as it has ended."""
    settings, profile = task_settings()
    wait = settings.settle_limit + profile.grace
    retrying = math.ceil(longest_wait(_LIVE_STAGES, profile) / profile.window)
    return _dag(
        windows_dag_id(profile),
        doc,
        cron_every(profile.window),
        settings,
        # No catch-up: the reconcile DAG computes missed windows.
        catchup=False,
        # A run that retries or waits for the sink must not delay the next window.
        max_active_runs=min(max(retrying, _RETRYING_RUNS), _MOST_RETRYING_RUNS)
        + math.ceil(wait / profile.window),
        dagrun_timeout=max(timedelta(minutes=30), longest_run(_LIVE_STAGES, profile)) + wait,
        retries=retry_table(_LIVE_STAGES, profile),
        tags=["live"],
    )


def reconcile_dag(doc: str) -> DAG:
    """Create the DAG that heals, every hour and for any past range from the UI."""
    settings, profile = task_settings()
    return _dag(
        reconcile_dag_id(profile),
        doc,
        "5 * * * *",
        settings,
        # The first run is due at once and computes the windows before the first live run.
        head_start=timedelta(hours=2),
        # One run covers everything that was missed: see `headrace.orchestration.heal_progress`.
        catchup=False,
        max_active_runs=2,
        dagrun_timeout=max(timedelta(hours=6), longest_run(_HEAL_STAGES, profile)),
        retries=retry_table(_HEAL_STAGES, profile),
        tags=["heal"],
        params=_range_params(),
    )


def quality_dag(doc: str) -> DAG:
    """Create the DAG for quality checks: one run per quarter of an hour, or per longer window."""
    settings, profile = task_settings()
    return _dag(
        quality_dag_id(profile),
        doc,
        cron_every(quality_interval(profile.window)),
        settings,
        catchup=False,
        max_active_runs=2,
        dagrun_timeout=max(timedelta(minutes=30), longest_run(_QUALITY_STAGES, profile)),
        retries=retry_table(_QUALITY_STAGES, profile),
        tags=["quality"],
        params=_range_params(),
    )


def cleanup_dag(doc: str) -> DAG:
    """Create the DAG that deletes old records and logs of Airflow."""
    settings, profile = task_settings()
    return _dag(
        "airflow_cleanup",
        doc,
        "23 3 * * *",
        settings,
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=2),
        retries=retry_table([CLEANUP], profile),
        tags=["maintenance"],
    )


def cron_every(interval: timedelta) -> str:
    """Return the cron expression for an interval of minutes that divides an hour."""
    minutes = interval // timedelta(minutes=1)
    # Cron has no "every 60 minutes".
    return "0 * * * *" if interval == _HOUR else f"*/{minutes} * * * *"


def quality_interval(window: timedelta) -> timedelta:
    """Return the shortest interval of at least 15 minutes that divides an hour into windows."""
    minute = timedelta(minutes=1)
    lengths = [number * minute for number in range(15, 61) if 60 % number == 0]
    return next(length for length in lengths if not length % window)


def _start_date(settings: Settings, now: datetime) -> datetime:
    """Return the start of a DAG's schedule.

    It is before the installation date, so that the first runs are due at once. No DAG catches
    up, so an early date creates no further runs. A date in the future would stop every DAG
    until then.
    """
    if "installed_at" not in settings.model_fields_set:
        msg = (
            "HEADRACE_INSTALLED_AT is not set: `make env` writes it into a new .env. In an Airflow "
            f"of your own, set it once to the current time, {rfc3339(now.replace(microsecond=0))}"
        )
        raise ConfigurationError(msg)
    return min(settings.installed_at, floor(now, _DAY))


def _range_params() -> dict[str, Param]:
    """Return the parameters with which an operator starts a run for a range."""
    moment: dict[str, Any] = {"type": ["null", "string"], "format": "date-time"}
    return {
        "start": Param(None, title="From", description="First window, UTC", **moment),
        "stop": Param(None, title="To", description="End of the last window, UTC", **moment),
    }


def _dag(
    dag_id: str,
    doc: str,
    cron: str,
    settings: Settings,
    *,
    tags: list[str],
    retries: str,
    head_start: timedelta = timedelta(0),
    **more: Any,
) -> DAG:
    description = doc.strip().partition("\n")[0]
    doc = f"{doc.rstrip()}\n\n{_RETRIES}\n\n{retries}\n"
    now = datetime.now(UTC)
    start = _start_date(settings, now)
    problem = installed_at_problem(settings.installed_at, now)
    return DAG(
        dag_id,
        description=description,
        doc_md=f"**Warning:** {problem}.\n\n{doc}" if problem else doc,
        # An explicit timetable: with a plain cron string, Airflow creates runs without an interval.
        schedule=CronDataIntervalTimetable(cron, timezone="UTC"),
        start_date=start - head_start,
        default_args={"owner": _OWNER},
        tags=["headrace", *tags],
        **more,
    )
