"""Headrace in an Airflow that has its default configuration: windows, a page, and a mail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from headrace.models.window import floor, parse_time
from tests.support.backbone import Backbone
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, hours_ago
from tests.support.stock_airflow import StockAirflow

pytestmark = pytest.mark.long

WINDOWS = 10
DEVICES = 5


@pytest.fixture(scope="module")
def stock(
    running_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory, commands: Path
) -> Iterator[StockAirflow]:
    """The default configuration: SQLite, LocalExecutor, simple auth manager, no pools of ours."""
    running_backbone.ensure_running()
    airflow = StockAirflow(running_backbone, tmp_path_factory.mktemp("sqlite"), commands)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.close()


@pytest.fixture(scope="module")
def live(stock: StockAirflow) -> StockAirflow:
    """With a fleet, and the DAGs switched on."""
    installation = stock.installation
    installation.worker("bridge").start()
    installation.worker("sink").launch()
    fleet = ("--generators", str(DEVICES), "--interval", "2-4")
    installation.worker("simulate", *fleet).launch()
    stock.switch_on("windows", "reconcile")
    return stock


def test_the_pools_are_created(stock: StockAirflow) -> None:
    pools = {pool["name"]: pool["slots"] for pool in stock.api.request("GET", "/pools")["pools"]}
    assert pools["headrace_publish"] == 1
    assert pools["headrace_heal"] == 2


def test_a_past_range_is_computed(live: StockAirflow) -> None:
    begin = hours_ago(5)
    moments = [begin + index * MINUTE + timedelta(seconds=10) for index in range(WINDOWS)]
    live.installation.store(*(("early", moment, {}) for moment in moments))
    run = live.api.heal(begin, begin + WINDOWS * MINUTE)
    assert run["state"] == "success"

    def windows() -> list[datetime]:
        rows = [row for row in live.installation.rows() if row["generatorID"] == "early"]
        return sorted(parse_time(row["window_start"]) for row in rows)

    wait_for(lambda: len(windows()) >= WINDOWS)
    assert windows() == [begin + index * MINUTE for index in range(WINDOWS)]


def test_a_failing_stage_sends_a_mail(live: StockAirflow) -> None:
    begin = hours_ago(5)
    path = "/connections/influxdb_default"
    try:
        live.api.request("PATCH", path, live.influx_connection("a-wrong-token"))
        assert live.api.heal(begin, begin + MINUTE)["state"] == "failed"
    finally:
        live.api.request("PATCH", path, live.influx_connection(live.influx_token))
    subject = f"[headrace] {live.installation.name}_reconcile.heal.downsample failed"
    wait_for(lambda: live.mailbox.subjects(subject), 60)
    assert live.api.heal(begin, begin + MINUTE)["state"] == "success"


def test_the_clean_up_deletes_nothing_without_its_connection(live: StockAirflow) -> None:
    path = "/dags/airflow_cleanup"
    live.api.request("PATCH", path, {"is_paused": False})
    run = live.api.request("POST", f"{path}/dagRuns", {"logical_date": None, "conf": {}})
    tasks = f"{path}/dagRuns/{run['dag_run_id']}/taskInstances"

    def state() -> str:
        (task,) = live.api.request("GET", tasks)["task_instances"]
        return str(task["state"]) if task["state"] in ("skipped", "success", "failed") else ""

    assert wait_for(state, 120) == "skipped"
    log = live.api.request("GET", f"{tasks}/cleanup/logs/1")["content"]
    assert "create it with type postgres" in str(log)


def test_the_page_shows_the_windows(live: StockAirflow) -> None:
    assert live.page("").status == 401
    assert live.page("", live.api).status == 200
    page = live.page("windows", live.api)
    assert page.status == 200
    states = Counter(window["state"] for window in page.json()["windows"])
    assert states["complete"] >= 1


def test_ten_of_ten_live_windows_are_computed(live: StockAirflow) -> None:
    # The first window is cut short by the start of the fleet.
    first = parse_time(live.api.next_live_window()["data_interval_end"])
    stop = first + WINDOWS * MINUTE

    def runs() -> dict[str, str]:
        return {
            run["data_interval_start"]: run["state"]
            for run in live.api.runs("windows", limit="20", run_type="scheduled")
            if first <= parse_time(run["data_interval_start"]) < stop
        }

    wait_for(
        lambda: len(found := runs()) == WINDOWS and set(found.values()) <= {"success", "failed"},
        (WINDOWS + 2) * 60,
        1,
    )
    assert Counter(runs().values()) == {"success": WINDOWS}
    rows = Counter(
        (row["generatorID"], floor(parse_time(row["window_start"]), MINUTE))
        for row in live.installation.rows()
        if first <= parse_time(row["window_start"]) < stop
    )
    # One row for each device and window, and none twice.
    assert rows == {
        (f"generator{device}", first + index * MINUTE): 1
        for device in range(1, DEVICES + 1)
        for index in range(WINDOWS)
    }
