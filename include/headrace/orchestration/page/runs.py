"""Links to runs in Airflow's UI, and finds the live run of each window."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from airflow.models.dagrun import DagRun
from sqlalchemy import select
from sqlalchemy.orm import Session

__all__ = ["live_runs", "run_link"]


def run_link(run: str) -> str:
    """Return the link to a run, relative to the page.

    Parameters
    ----------
    run
        Name of the run in markers: ``<DAG id>/<run id>``.
    """
    dag_id, _, run_id = run.partition("/")
    return f"../dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def live_runs(
    session: Session, dag_id: str, start: datetime, stop: datetime
) -> dict[datetime, str]:
    """Return the scheduled runs of the live DAG by window."""
    found = session.execute(
        select(DagRun.data_interval_start, DagRun.run_id).where(
            DagRun.dag_id == dag_id,
            DagRun.run_type == "scheduled",
            DagRun.data_interval_start >= start,
            DagRun.data_interval_start < stop,
        )
    )
    return {window: f"{dag_id}/{run_id}" for window, run_id in found if window}
