"""Takes the pictures of the docs: ``python -m tests.support.pictures docs/pictures``.

It starts its own servers and Airflow, simulates a day of a small fleet, and opens the pages in
a real Chromium. All pictures are real screenshots.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from headrace.models.quality import CheckResult, Verdict
from headrace.models.window import WindowRange, floor, rfc3339
from headrace.stages.alarms import evaluate_alarms
from headrace.stages.downsample import downsample
from headrace.stages.pipeline import Pipeline
from headrace.stages.quality import write_results
from headrace.stages.republish import republish
from native import servers
from tests.support.airflow import AirflowStack
from tests.support.backbone import Backbone
from tests.support.browser import chromium
from tests.support.installation import Installation
from tests.support.processes import Process, free_port, wait_for
from tests.support.ranges import MINUTE

_HOUR = timedelta(hours=1)
_DAY = 24 * _HOUR
_FLEET = 12
_NAME = "generators"


def take(folder: Path) -> None:
    """Take every picture."""
    backbone = Backbone()
    backbone.ensure_running()
    mailbox_port, smtp_port = free_port(), free_port()
    mailbox = Process(
        servers.mailbox(
            backbone.programs.maildev,
            backbone.folder / "mailbox",
            smtp_port=smtp_port,
            web_port=mailbox_port,
        ),
        backbone.folder / "log" / "mailbox.log",
    )
    now = floor(datetime.now(UTC), MINUTE)
    stack = AirflowStack(
        backbone,
        backbone.folder / "airflow",
        {
            "HEADRACE_INSTALLED_AT": rfc3339(now - _DAY - _HOUR),
            "HEADRACE_SMTP_PORT": str(smtp_port),
        },
        {"name": _NAME},
    )
    # The DAGs have their usual names in the pictures.
    stack.installation.name = _NAME
    try:
        mailbox.start()
        _live_a_day(stack.installation, now)
        stack.start()
        wait_for(lambda: all(run["state"] == "success" for run in _reconciles(stack)), 600, 1)
        with _logged_in(stack) as browser:
            _picture_mailbox(stack, browser, mailbox_port, folder)
            _picture_airflow(stack, browser, folder)
            _spoil(stack, now)
            _picture_page(stack, browser, folder)
    finally:
        stack.close()
        mailbox.kill()
        backbone.close()


def _reconciles(stack: AirflowStack) -> list[dict[str, str]]:
    return stack.runs("reconcile", limit="50")


def _live_a_day(installation: Installation, now: datetime) -> None:
    """Store the readings of a day and compute them by the hour, as if each window had a run.

    Airflow computes the windows of one more hour.
    """
    begin = floor(now - _DAY - _HOUR, _HOUR)
    while begin < now + _HOUR:
        stop = begin + _HOUR
        if begin < now < stop:
            stop = now
        windows = WindowRange(begin, stop, MINUTE)
        installation.store(
            *(
                (f"generator{number}", moment, _values(number, moment, now))
                for number in range(1, _FLEET + 1)
                for start in windows.starts()
                for moment in (start + timedelta(seconds=number + 15 * part) for part in range(3))
                if not _is_silent(number, moment, now)
            )
        )
        if stop <= now:
            _compute(installation, windows)
        begin = stop


def _values(number: int, moment: datetime, now: datetime) -> Mapping[str, float]:
    """Return values whose fuel falls by 25 gal an hour from a different level for each device."""
    hours = (moment - (now - _DAY)) / _HOUR
    fuel = (900 + 61 * number - 25 * hours - 380) % 720 + 380
    heat = 60 if number == 4 and now - moment < timedelta(minutes=47) else 0
    return {"fuel": fuel, "temperature": 205 + 40 * math.sin(hours / 3 + number) + heat}


def _is_silent(number: int, moment: datetime, now: datetime) -> bool:
    return number == 9 and now - moment < timedelta(hours=2, minutes=26)


def _compute(installation: Installation, windows: WindowRange, *, settled: bool = True) -> None:
    with installation.pipeline() as pipeline:
        _downsample(windows, pipeline, settled=settled)
        evaluate_alarms(windows, pipeline)
        republish(windows, pipeline, run=_run(windows))


def _downsample(windows: WindowRange, pipeline: Pipeline, *, settled: bool = True) -> None:
    downsample(windows, pipeline, settled=settled, run=_run(windows))


def _run(windows: WindowRange) -> str:
    return f"{_NAME}_windows/scheduled__{windows.start.isoformat()}"


def _spoil(stack: AirflowStack, now: datetime) -> None:
    """Create missing, unsettled and changed windows that are not healed yet."""
    stack.request("PATCH", f"/dags/{stack.name}_reconcile", {"is_paused": True})
    installation = stack.installation
    # Three devices were offline and sent their buffered readings.
    offline = WindowRange(now - 14 * _HOUR, now - 14 * _HOUR + 52 * MINUTE, MINUTE)
    installation.store(
        *(
            (f"generator{number}", start + timedelta(seconds=57), _values(number, start, now))
            for number in (2, 5, 7)
            for start in offline.starts()
        )
    )
    _compute(installation, offline)
    unsettled = WindowRange(now - 19 * MINUTE, now - 12 * MINUTE, MINUTE)
    _compute(installation, unsettled, settled=False)
    missing = WindowRange(now - 39 * MINUTE, now - 28 * MINUTE, MINUTE)
    quarter = floor(now - 5 * _HOUR, timedelta(minutes=15))
    failed = WindowRange(quarter, quarter + timedelta(minutes=15), MINUTE)
    check = CheckResult("readings", 0.31, 0.8, 0.4, Verdict.FAIL, "far fewer than expected")
    with installation.pipeline() as pipeline:
        _downsample(missing, pipeline)
        write_results(failed, [check, replace(check, name="completeness")], pipeline)


@contextmanager
def _logged_in(stack: AirflowStack) -> Iterator[Chrome]:
    with chromium(1280, 860) as browser:
        browser.get(f"{_url(stack)}/auth/login")
        wait_for(lambda: browser.find_elements(By.NAME, "username"), 60)[0].send_keys("admin")
        browser.find_element(By.NAME, "password").send_keys("the-password")
        browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        wait_for(lambda: browser.get_cookie("_token"), 60)
        yield browser


def _url(stack: AirflowStack) -> str:
    return f"http://127.0.0.1:{stack.port}"


def _wait_for_text(browser: Chrome, text: str) -> None:
    wait_for(lambda: text in browser.find_element(By.TAG_NAME, "body").text, 60)


def _picture_airflow(stack: AirflowStack, browser: Chrome, folder: Path) -> None:
    browser.set_window_size(1280, 660)
    browser.get(f"{_url(stack)}/dags/{_NAME}_reconcile")
    _wait_for_text(browser, "await_ingest")
    for button in ("Collapse Details Panel", "Expand all task groups"):
        browser.find_element(By.CSS_SELECTOR, f"[aria-label='{button}']").click()
    _wait_for_text(browser, "evaluate_alarms")
    browser.save_screenshot(str(folder / "airflow-grid.png"))
    browser.set_window_size(1280, 1140)
    browser.refresh()
    _button(browser, "Trigger").click()
    _wait_for_text(browser, "Backfill")
    browser.find_element(By.XPATH, "//*[normalize-space(text())='Backfill']").click()
    _wait_for_text(browser, "Reprocess")
    browser.save_screenshot(str(folder / "airflow-backfill.png"))


def _button(browser: Chrome, name: str) -> WebElement:
    return wait_for(
        lambda: browser.find_elements(By.XPATH, f"//button[contains(., '{name}')]"), 60
    )[0]


def _picture_mailbox(stack: AirflowStack, browser: Chrome, port: int, folder: Path) -> None:
    """Photograph the mails of a permanent failure and of the recovery."""
    token = stack.installation.settings.tokens_dir / "airflow.token"
    good = token.read_text()
    stop = floor(datetime.now(UTC), MINUTE) - 10 * MINUTE
    try:
        token.write_text("a-wrong-token")
        stack.heal(stop - MINUTE, stop)
    finally:
        token.write_text(good)
    stack.heal(stop - MINUTE, stop)
    browser.get(f"http://127.0.0.1:{port}/")
    _wait_for_text(browser, "works again")
    browser.set_window_size(1280, 640)
    browser.find_element(By.PARTIAL_LINK_TEXT, "failed").click()
    browser.switch_to.frame(wait_for(lambda: browser.find_elements(By.TAG_NAME, "iframe"), 60)[0])
    _wait_for_text(browser, "Open the log")
    browser.switch_to.default_content()
    browser.save_screenshot(str(folder / "mailbox.png"))


def _picture_page(stack: AirflowStack, browser: Chrome, folder: Path) -> None:
    browser.get(f"{_url(stack)}/headrace/")
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#alarms tbody tr"), 60)
    corrected = wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#timeline .corrected"), 60)
    height = browser.execute_script("return document.documentElement.scrollHeight")  # type: ignore[no-untyped-call]
    browser.set_window_size(1280, int(height) + 150)
    ActionChains(browser).move_to_element(corrected[20]).perform()
    wait_for(lambda: browser.find_element(By.ID, "tip").is_displayed())
    browser.save_screenshot(str(folder / "windows-page.png"))


if __name__ == "__main__":
    take(Path(sys.argv[1]))
