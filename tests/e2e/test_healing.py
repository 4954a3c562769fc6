"""Missed windows are healed automatically; any past range by the API, as by the UI."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from headrace.models.window import WindowRange, parse_time, rfc3339
from tests.support.airflow import AirflowStack
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, hours_ago, windows

HOUR = timedelta(hours=1)


def revisions(airflow: AirflowStack, device: str) -> Counter[tuple[str, int]]:
    """Windows and revisions of a device that consumers have received."""
    return Counter(
        (row["window_start"], row["revision"])
        for row in airflow.installation.rows()
        if row["generatorID"] == device
    )


def once(range_: WindowRange, revision: int = 0) -> Counter[tuple[str, int]]:
    return Counter((rfc3339(start), revision) for start in range_.starts())


def hours_before(hours: int, count: int) -> WindowRange:
    """Whole hours as reconcile runs cover them: from five past to five past."""
    start = hours_ago(hours)
    return windows(start.replace(minute=5), 60 * count)


def create_backfill(airflow: AirflowStack, range_: WindowRange, **more: Any) -> int:
    """Send what *Trigger* > *Backfill* sends in the UI; return the number of runs."""
    body = {
        "dag_id": f"{airflow.name}_reconcile",
        "from_date": rfc3339(range_.start),
        # Both ends are inclusive.
        "to_date": rfc3339(range_.stop - timedelta(seconds=1)),
        "reprocess_behavior": "none",
        "max_active_runs": 4,
        **more,
    }
    planned = airflow.request("POST", "/backfills/dry_run", body)["total_entries"]
    number = airflow.request("POST", "/backfills", body)["id"]
    wait_for(lambda: airflow.request("GET", f"/backfills/{number}")["completed_at"], 400, 1)
    runs = airflow.runs("reconcile", run_type="backfill")
    begun = [
        run for run in runs if range_.start <= parse_time(run["data_interval_start"]) < range_.stop
    ]
    assert {run["state"] for run in begun} == {"success"}
    assert len(begun) == planned
    return int(planned)


@pytest.mark.runs("cli:status")
def test_two_hours_without_airflow(airflow: AirflowStack, missed: WindowRange) -> None:
    """The first reconcile run after the start finds these windows."""
    assert revisions(airflow, "early") == once(missed)

    def missing() -> int:
        done = airflow.installation.headrace("status", "--json")
        return int(json.loads(done.stdout)["windows"]["missing"])

    wait_for(lambda: missing() == 0, 120, 2)
    # Healing did not delay live windows. The first one was late before Airflow started.
    live = wait_for(
        lambda: [run for run in airflow.runs("windows")[:-1] if run["state"] == "success"], 150
    )
    for run in live:
        started = parse_time(run["start_date"]) - parse_time(run["data_interval_end"])
        assert started < timedelta(seconds=30)


def test_backfill_and_correction(airflow: AirflowStack) -> None:
    """Two hours in two runs; then late readings, and a run for three windows."""
    past = hours_before(12, 2)
    airflow.installation.store(*(("past", start, {}) for start in past.starts()))
    assert create_backfill(airflow, past) == 2
    assert revisions(airflow, "past") == once(past)

    late = windows(past.start + 30 * MINUTE, 3)
    airflow.installation.store(
        *(("past", start + timedelta(seconds=30), {"fuel": 1}) for start in late.starts())
    )
    # Two of these windows have changed, one has not.
    asked = windows(late.start + MINUTE, 3)
    run = airflow.heal(asked.start, asked.stop)
    assert run["state"] == "success"
    changed = windows(asked.start, 2)
    assert revisions(airflow, "past") == once(past) + once(changed, 1)


@pytest.mark.long
def test_a_day_in_twenty_four_runs(airflow: AirflowStack) -> None:
    day = hours_before(72, 24)
    airflow.installation.store(*(("daily", start, {}) for start in day.starts()))
    assert create_backfill(airflow, day) == 24
    assert revisions(airflow, "daily") == once(day)
    # Computing everything again publishes nothing.
    assert create_backfill(airflow, day, reprocess_behavior="completed") == 24
    assert revisions(airflow, "daily") == once(day)
