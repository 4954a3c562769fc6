"""The clean-up DAG deletes old records and logs of Airflow and keeps new ones."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest

from headrace.models.window import WindowRange
from tests.support.airflow import AirflowStack
from tests.support.processes import wait_for
from tests.support.ranges import hours_ago, windows

CLEANUP = "/dags/airflow_cleanup/dagRuns"
OLD = timedelta(days=40)


def run_range(airflow: AirflowStack, range_: WindowRange) -> tuple[str, Path]:
    """Run a range manually; return the run and its log folder."""
    run = airflow.heal(range_.start, range_.stop)
    assert run["state"] == "success"
    run_id = str(run["dag_run_id"])
    logs = Path(airflow.environment["AIRFLOW_HOME"]) / "logs"
    (folder,) = logs.glob(f"dag_id={airflow.name}_reconcile/run_id={run_id}")
    return run_id, folder


def make_old(airflow: AirflowStack, run_id: str, folder: Path) -> None:
    """Set the dates of a run and its logs back by 40 days."""
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=airflow.postgres_port,
        user="airflow",
        password=airflow.postgres_password,
        dbname="airflow",
    )
    try:
        with connection, connection.cursor() as cursor:
            for table in ("dag_run", "task_instance"):
                cursor.execute(
                    f"UPDATE {table} SET start_date = start_date - %s WHERE run_id = %s",  # noqa: S608
                    (OLD, run_id),
                )
                assert cursor.rowcount > 0
    finally:
        connection.close()
    moment = time.time() - OLD.total_seconds()
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (moment, moment))


@pytest.mark.runs("dag:cleanup")
def test_only_old_records_and_logs_are_deleted(airflow: AirflowStack) -> None:
    range_ = windows(hours_ago(9), 1)
    old, old_logs = run_range(airflow, range_)
    new, new_logs = run_range(airflow, range_)
    make_old(airflow, old, old_logs)

    cleanup = airflow.request("POST", CLEANUP, {"logical_date": None, "conf": {}})["dag_run_id"]

    def state() -> str:
        found = str(airflow.request("GET", f"{CLEANUP}/{cleanup}")["state"])
        return found if found in ("success", "failed") else ""

    assert wait_for(state, 180, 1) == "success"
    runs = {run["dag_run_id"] for run in airflow.runs("reconcile", run_type="manual")}
    assert new in runs
    assert old not in runs
    assert airflow.tasks("reconcile", new)
    airflow.request("GET", f"/dags/{airflow.name}_reconcile/dagRuns/{old}", expect=(404,))
    assert not old_logs.exists()
    assert list(new_logs.rglob("*.log"))
