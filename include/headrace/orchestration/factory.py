"""Makes the DAGs: what they have in common, and the schedules that follow the profile."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from headrace.errors import ConfigurationError
from headrace.orchestration.connections import task_settings
from headrace.profile import Profile
from headrace.settings import Settings

__all__ = [
    "cleanup_dag",
    "quality_dag",
    "quality_dag_id",
    "reconcile_dag",
    "reconcile_dag_id",
    "windows_dag",
    "windows_dag_id",
]

_OWNER = "headrace"


def windows_dag_id(profile: Profile) -> str:
    """Id of the DAG of live windows."""
    return f"{profile.name}_windows"


def reconcile_dag_id(profile: Profile) -> str:
    """Id of the DAG that heals."""
    return f"{profile.name}_reconcile"


def quality_dag_id(profile: Profile) -> str:
    """Id of the DAG of the quality checks."""
    return f"{profile.name}_quality"


def windows_dag(doc: str) -> DAG:
    """The DAG of live windows: one run a window, as soon as it has closed."""
    settings, profile = task_settings()
    minutes = profile.window // timedelta(minutes=1)
    # Cron has no "every 60 minutes": an hour is once an hour.
    cron = "0 * * * *" if minutes == 60 else f"*/{minutes} * * * *"  # noqa: PLR2004
    return _dag(
        windows_dag_id(profile),
        doc,
        cron,
        start_date=_installed_at(settings),
        # Live means now: what was missed is for the reconcile, by the hour.
        catchup=False,
        # A run that is trying again must not keep the next window waiting.
        max_active_runs=8,
        dagrun_timeout=timedelta(minutes=30),
        tags=["live"],
    )


def reconcile_dag(doc: str) -> DAG:
    """The DAG that heals: hourly, and for any past range from the UI."""
    settings, profile = task_settings()
    return _dag(
        reconcile_dag_id(profile),
        doc,
        "5 * * * *",
        # So that the first run is due at once: it computes the windows between the
        # installation and the first live run.
        start_date=_installed_at(settings) - timedelta(hours=2),
        catchup=True,
        max_active_runs=2,
        dagrun_timeout=timedelta(hours=6),
        tags=["heal"],
        params=_range_params(),
    )


def quality_dag(doc: str) -> DAG:
    """The DAG of the quality checks: every quarter of an hour, about that quarter."""
    settings, profile = task_settings()
    return _dag(
        quality_dag_id(profile),
        doc,
        "*/15 * * * *",
        start_date=_installed_at(settings),
        catchup=False,
        max_active_runs=2,
        dagrun_timeout=timedelta(minutes=30),
        tags=["quality"],
        params=_range_params(),
    )


def cleanup_dag(doc: str) -> DAG:
    """The DAG that keeps Airflow's own database and logs small."""
    settings, _ = task_settings()
    return _dag(
        "airflow_cleanup",
        doc,
        "23 3 * * *",
        start_date=_installed_at(settings),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=2),
        tags=["maintenance"],
    )


def _installed_at(settings: Settings) -> datetime:
    """When the installation began: catching up, Airflow makes a run for each hour since."""
    if "installed_at" not in settings.model_fields_set:
        msg = "HEADRACE_INSTALLED_AT is not set: `make env` writes it into a new .env"
        raise ConfigurationError(msg)
    return settings.installed_at


def _range_params() -> dict[str, Param]:
    """What a person fills in to start a run for some range."""
    moment: dict[str, Any] = {"type": ["null", "string"], "format": "date-time"}
    return {
        "start": Param(None, title="From", description="First window, UTC", **moment),
        "stop": Param(None, title="To", description="End of the last window, UTC", **moment),
    }


def _dag(dag_id: str, doc: str, cron: str, *, tags: list[str], **more: Any) -> DAG:
    return DAG(
        dag_id,
        description=doc.strip().partition("\n")[0],
        doc_md=doc,
        # Said outright: a bare cron string makes runs without an interval.
        schedule=CronDataIntervalTimetable(cron, timezone="UTC"),
        default_args={"owner": _OWNER},
        tags=["headrace", *tags],
        **more,
    )
