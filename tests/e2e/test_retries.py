"""Temporary errors are retried and permanent errors are not, on real servers."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.models.window import parse_time, rfc3339
from tests.support.airflow import AirflowStack
from tests.support.processes import Process, wait_for
from tests.support.ranges import hours_ago, windows

#: Shorter than the time that the retry policies cover.
AWAY_SECONDS = 20


def comes_back(airflow: AirflowStack, server: Process, stage: str, failing: str) -> dict[str, Any]:
    """Start a run while a server is down, then restart the server; return the stage's task."""
    range_ = windows(hours_ago(5), 1)
    airflow.installation.store(("generator1", range_.start, {}))
    server.kill()
    gone = time.monotonic()
    try:
        run = airflow.trigger("reconcile", start=rfc3339(range_.start), stop=rfc3339(range_.stop))
        airflow.wait_for_task("reconcile", run, stage, ("up_for_retry",), 180)
        time.sleep(max(0.0, gone + AWAY_SECONDS - time.monotonic()))
    finally:
        server.start()
    assert airflow.wait_for_run("reconcile", run, 240)["state"] == "success"
    task = airflow.wait_for_task("reconcile", run, stage, ("success",))
    assert failing in airflow.log("reconcile", run, stage, map_index=task["map_index"])
    # A retry sends no mail.
    assert airflow.mailbox.subjects(f"reconcile.{stage}") == []
    return task


def test_a_stage_is_retried_until_influxdb_is_back(airflow: AirflowStack) -> None:
    task = comes_back(
        airflow, airflow.backbone.influxdb, "heal.downsample", "ServerUnavailableError"
    )
    assert task["try_number"] > 1


@pytest.mark.long
def test_a_stage_is_retried_until_kafka_is_back(airflow: AirflowStack) -> None:
    task = comes_back(airflow, airflow.backbone.kafka, "await_ingest", "Kafka")
    assert task["try_number"] > 1


def test_permanent_errors_fail_at_once(airflow: AirflowStack) -> None:
    """Deleted raw data and an error in a Flux file: one try, and a mail with the reason."""
    old = windows(hours_ago(40 * 24), 5)
    recent = windows(hours_ago(5), 1)
    airflow.installation.store(("generator1", recent.start, {}))
    flux = Path(airflow.environment["HEADRACE_FLUX_DIR"]) / "alarm_threshold.flux"
    good = flux.read_text()
    try:
        flux.write_text(good.replace("params.below", "params.beneath"))
        runs = {
            "find": (old, "RawDataGoneError: the raw readings of"),
            "heal.evaluate_alarms": (recent, "while running alarm_threshold.flux"),
        }
        for stage, (range_, reason) in runs.items():
            run = airflow.heal(range_.start, range_.stop)
            assert run["state"] == "failed"
            task = airflow.wait_for_task("reconcile", run["dag_run_id"], stage, ("failed",))
            assert task["try_number"] == 1
            subject = f"[headrace] {airflow.name}_reconcile.{stage} failed"
            wait_for(lambda subject=subject: airflow.mailbox.subjects(subject))
            (mail,) = [mail for mail in airflow.mailbox.mails if mail["Subject"] == subject]
            body = mail.get_body(("html",))
            assert body is not None
            assert reason in body.get_content()
    finally:
        flux.write_text(good)
    assert airflow.heal(recent.start, recent.stop)["state"] == "success"
    wait_for(lambda: len(airflow.mailbox.subjects("works again")) == len(runs))
    assert len(airflow.mailbox.subjects("reconcile.")) == 2 * len(runs)


@pytest.mark.long
def test_a_killed_worker_is_replaced_within_a_minute(airflow: AirflowStack) -> None:
    """The task and its supervisor receive SIGKILL while the task waits for Kafka."""
    range_ = windows(hours_ago(6), 1)
    installation, kafka = airflow.installation, airflow.backbone.kafka
    installation.store(("killed", range_.start, {}))
    run = airflow.trigger("reconcile", start=rfc3339(range_.start), stop=rfc3339(range_.stop))
    airflow.wait_for_task("reconcile", run, "heal.evaluate_alarms", ("running", "success"))
    kafka.signal(signal.SIGSTOP)
    try:
        task = airflow.wait_for_task("reconcile", run, "heal.republish", ("running",))
        stat = Path(f"/proc/{task['pid']}/stat").read_text()
        worker = int(stat.rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)
        os.kill(task["pid"], signal.SIGKILL)
        killed = datetime.now(UTC)
    finally:
        kafka.signal(signal.SIGCONT)

    def next_try() -> dict[str, Any]:
        (found,) = [
            item for item in airflow.tasks("reconcile", run) if item["task_id"] == "heal.republish"
        ]
        return found if found["try_number"] > 1 and found["start_date"] else {}

    again = wait_for(next_try, 120)
    assert parse_time(again["start_date"]) - killed < timedelta(minutes=1)
    assert airflow.wait_for_run("reconcile", run)["state"] == "success"
    (row,) = [row for row in installation.rows() if row["generatorID"] == "killed"]
    assert row["revision"] == 0
