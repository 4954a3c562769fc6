"""Headrace in an Airflow with PostgreSQL and the FAB auth manager: roles, and a backfill."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from headrace.models.window import parse_time, rfc3339
from tests.support.backbone import Backbone
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, hours_ago
from tests.support.stock_airflow import ADMIN, FAB, NOBODY, VIEWER, StockAirflow

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stock(
    running_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory, commands: Path
) -> Iterator[StockAirflow]:
    running_backbone.ensure_running()
    airflow = StockAirflow(
        running_backbone,
        tmp_path_factory.mktemp("fab"),
        commands,
        own_database=True,
        env={"AIRFLOW__CORE__AUTH_MANAGER": FAB},
    )
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.close()


@pytest.mark.parametrize("path", ["", "page.js", "windows", "alarms"])
def test_the_page_uses_the_permissions_of_airflow(stock: StockAirflow, path: str) -> None:
    assert stock.page(path).status == 401
    # A role without the permission to read runs.
    assert stock.page(path, stock.api_of(NOBODY)).status == 403
    for login in (VIEWER, ADMIN):
        assert stock.page(path, stock.api_of(login)).status == 200


def test_only_users_with_the_permission_can_compute_a_range(stock: StockAirflow) -> None:
    begin = hours_ago(5)
    name = stock.installation.name
    viewer = stock.api_of(VIEWER)
    body = {"logical_date": None, "conf": {"start": rfc3339(begin), "stop": rfc3339(begin)}}
    viewer.request("POST", f"/dags/{name}_reconcile/dagRuns", body, expect=(403,))
    # A viewer can open the links of the page.
    assert viewer.runs("reconcile") == []
    stock.switch_on("reconcile")
    stock.installation.store(("early", begin + timedelta(seconds=10), {}))
    assert stock.api.heal(begin, begin + MINUTE)["state"] == "success"
    (row,) = wait_for(stock.installation.rows)
    assert parse_time(row["window_start"]) == begin
    (state,) = {
        window["state"]
        for window in stock.page("windows", viewer).json()["windows"]
        if parse_time(window["start"]) == begin
    }
    assert state == "complete"


def test_a_backfill_computes_the_hours_that_it_names(stock: StockAirflow) -> None:
    """The backfill is created on Airflow's command line."""
    hour = hours_ago(4).replace(minute=0)
    moments = [hour + index * MINUTE + timedelta(seconds=10) for index in range(10)]
    stock.installation.store(*(("backfilled", moment, {}) for moment in moments))
    options = {
        "dag-id": f"{stock.installation.name}_reconcile",
        # Runs of this DAG begin five minutes past the hour, and both ends are included: two runs.
        "from-date": rfc3339(hour - 55 * MINUTE),
        "to-date": rfc3339(hour + 5 * MINUTE),
        "reprocess-behavior": "completed",
    }
    stock.switch_on("reconcile")
    stock.airflow("backfill", "create", *(f"--{key}={value}" for key, value in options.items()))

    def states() -> list[str]:
        return [run["state"] for run in stock.api.runs("reconcile", run_type="backfill")]

    wait_for(lambda: len(states()) == 2 and set(states()) <= {"success", "failed"}, 300, 1)
    assert states() == ["success", "success"]

    def windows() -> list[datetime]:
        rows = [row for row in stock.installation.rows() if row["generatorID"] == "backfilled"]
        return sorted(parse_time(row["window_start"]) for row in rows)

    wait_for(lambda: len(windows()) >= 10)
    assert windows() == [hour + index * MINUTE for index in range(10)]
