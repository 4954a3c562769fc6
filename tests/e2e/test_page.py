"""The page *Windows* in Airflow's UI, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import urllib3
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from headrace.models.quality import CheckResult, Verdict
from headrace.models.window import WindowRange, rfc3339
from headrace.stages.alarms import evaluate_alarms
from headrace.stages.downsample import downsample
from headrace.stages.quality import write_results
from headrace.stages.republish import republish
from tests.support.airflow import AirflowStack
from tests.support.browser import chromium
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, hours_ago, windows

#: Device ids with markup. The last form is escaped for line protocol.
HOSTILE = "<img src=x onerror=document.title='taken'>"
MARKUP = "[red]x"
HOSTILE_TAG = HOSTILE.replace(" ", r"\ ").replace("=", r"\=")

COMPLETE, CORRECTED, UNSETTLED, MISSING, FAILED = range(5)


@dataclass
class Scene:
    """Five windows, one in each state. One Airflow run computed them; then they were changed."""

    airflow: AirflowStack
    begin: datetime
    run_id: str

    def window(self, index: int) -> WindowRange:
        return windows(self.begin + index * MINUTE, 1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.airflow.port}"


@pytest.fixture(scope="module")
def scene(running_airflow: AirflowStack) -> Iterator[Scene]:
    airflow, begin = running_airflow, hours_ago(7)
    installation = airflow.installation
    moments = [begin + index * MINUTE + timedelta(seconds=10) for index in range(5)]
    for moment in moments:
        installation.store(
            ("page1", moment, {}),
            # Fuel is low until the third window, which clears the alarm.
            ("page2", moment, {"fuel": 400 if moment < moments[2] else 900}),
            (HOSTILE_TAG, moment, {"fuel": 400}),
            (MARKUP, moment, {"fuel": 400}),
        )
    run = airflow.heal(begin, begin + 5 * MINUTE)
    assert run["state"] == "success"
    scene = Scene(airflow, begin, run["dag_run_id"])
    # The hourly run would heal the following changes.
    airflow.request("PATCH", f"/dags/{airflow.name}_reconcile", {"is_paused": True})
    installation.store(("page1", moments[CORRECTED] + timedelta(seconds=9), {"fuel": 650}))
    compute(scene, CORRECTED, settled=True)
    compute(scene, UNSETTLED, settled=False)
    with installation.pipeline() as pipeline:
        # Computed but never published.
        downsample(scene.window(MISSING), pipeline, settled=True, run="test/1")
        check = CheckResult("freshness", 400.0, 60.0, 300.0, Verdict.FAIL, "old")
        write_results(scene.window(FAILED), [check], pipeline)
    yield scene
    airflow.request("PATCH", f"/dags/{airflow.name}_reconcile", {"is_paused": False})


def compute(scene: Scene, index: int, *, settled: bool) -> None:
    with scene.airflow.installation.pipeline() as pipeline:
        window = scene.window(index)
        downsample(window, pipeline, settled=settled, run="test/1")
        evaluate_alarms(window, pipeline)
        republish(window, pipeline, run="test/1")


@pytest.fixture(scope="module")
def browser(scene: Scene) -> Iterator[Chrome]:
    """A browser in which a user has logged in."""
    with chromium() as window:
        window.get(f"{scene.url}/auth/login?next=/headrace/")
        wait_for(lambda: window.find_elements(By.NAME, "username"), 60)[0].send_keys("admin")
        window.find_element(By.NAME, "password").send_keys("the-password")
        window.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        wait_for(lambda: window.get_cookie("_token"), 60)
        yield window


def open_page(browser: Chrome, url: str) -> None:
    browser.get(url)
    wait_for(lambda: cells(browser), 60)
    wait_for(lambda: rows(browser), 60)


def cells(browser: Chrome, which: str = "") -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, f"#timeline .cell[data-start]{which}")


def cell(browser: Chrome, scene: Scene, index: int) -> WebElement:
    (found,) = cells(browser, f"[data-start='{rfc3339(scene.window(index).start)}']")
    return found


def rows(browser: Chrome) -> list[list[str]]:
    return [
        [column.text for column in row.find_elements(By.TAG_NAME, "td")]
        for row in browser.find_elements(By.CSS_SELECTOR, "#alarms tbody tr")
    ]


@pytest.mark.parametrize("path", ["", "windows", "alarms", "page.js", "icon.svg"])
def test_the_page_requires_a_login(airflow: AirflowStack, path: str) -> None:
    url = f"http://127.0.0.1:{airflow.port}/headrace/{path}"
    assert urllib3.request("GET", url, retries=False).status == 401
    wrong = {"Authorization": "Bearer not-a-token"}
    assert urllib3.request("GET", url, headers=wrong, retries=False).status in (401, 403)


def test_each_window_shows_its_state_and_links_to_its_run(scene: Scene, browser: Chrome) -> None:
    open_page(browser, f"{scene.url}/headrace/")
    states = [str(cell(browser, scene, index).get_attribute("class")) for index in range(5)]
    assert states == [
        f"cell {state}"
        for state in ("complete", "corrected", "unsettled", "missing", "quality-failed")
    ]
    tip = cell(browser, scene, CORRECTED).get_attribute("data-tip")
    assert "5 readings of 4 devices, revision 1" in tip
    assert "failed: freshness" in cell(browser, scene, FAILED).get_attribute("data-tip")
    # The legend counts the windows of each state.
    for state in ("corrected", "unsettled", "missing", "quality-failed"):
        (count,) = browser.find_elements(By.CSS_SELECTOR, f"#legend li:has(.{state}) b")
        assert int(count.text) == len(cells(browser, f".{state}")), state
    cell(browser, scene, COMPLETE).click()
    wait_for(lambda: "/dags/" in browser.current_url, 60)
    assert f"/dags/{scene.airflow.name}_reconcile/runs/" in browser.current_url
    # Airflow's UI opens the run and shows its tasks.
    wait_for(lambda: "downsample" in browser.find_element(By.TAG_NAME, "body").text, 60)


def test_active_alarms_are_listed_and_ids_are_shown_as_text(scene: Scene, browser: Chrome) -> None:
    open_page(browser, f"{scene.url}/headrace/")
    alarms = {row[0]: row for row in rows(browser) if row[1] == "fuel"}
    since = scene.begin.strftime("%Y-%m-%d %H:%M")
    assert alarms[HOSTILE][:4] == [HOSTILE, "fuel", "refuel", since]
    assert alarms[HOSTILE][4].startswith("7 h ")
    assert alarms[MARKUP][0] == MARKUP
    # The alarm of this device was cleared.
    assert "page2" not in alarms
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert browser.title == "Windows · Headrace"
    assert errors(browser) == []


def test_a_task_links_to_its_windows(scene: Scene, browser: Chrome) -> None:
    browser.get(f"{scene.url}{link(scene, 'heal.downsample', 0)}")
    wait_for(lambda: cells(browser), 60)
    marked = [element.get_attribute("data-start") for element in cells(browser, ".marked")]
    assert marked == [rfc3339(scene.window(index).start) for index in range(5)]
    assert link(scene, "find") == link(scene, "await_ingest") == link(scene, "heal.republish", 0)
    live = scene.airflow.runs("windows", limit="1")[0]
    path = f"/dags/{live['dag_id']}/dagRuns/{live['dag_run_id']}/taskInstances/republish/links"
    start = live["data_interval_start"].replace(":", "%3A")
    assert f"?start={start}&" in scene.airflow.request("GET", path)["extra_links"]["Windows"]


def link(scene: Scene, task: str, piece: int = -1) -> str:
    path = f"/dags/{scene.airflow.name}_reconcile/dagRuns/{scene.run_id}/taskInstances/{task}/links"
    links: dict[str, Any] = scene.airflow.request("GET", path, map_index=str(piece))["extra_links"]
    return str(links["Windows"])


def test_an_unavailable_server_is_reported_in_a_sentence(scene: Scene, browser: Chrome) -> None:
    backbone = scene.airflow.backbone
    backbone.influxdb.kill()
    try:
        browser.get(f"{scene.url}/headrace/")
        for problem in ("windows-problem", "alarms-problem"):
            text = wait_for(lambda name=problem: browser.find_element(By.ID, name).text, 60)
            assert text.startswith("InfluxDB can't be reached")
            assert "Traceback" not in text
    finally:
        backbone.ensure_running()
    open_page(browser, f"{scene.url}/headrace/")
    assert not browser.find_element(By.ID, "windows-problem").is_displayed()


def errors(browser: Chrome) -> list[str]:
    """Return the browser's errors: failed scripts and scripts blocked by the page's policy."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
