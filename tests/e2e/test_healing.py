"""Missed windows heal automatically; a backfill through the API heals any past range."""

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
    """Return the windows and revisions of a device that consumers have received."""
    return Counter(
        (row["window_start"], row["revision"])
        for row in airflow.installation.rows()
        if row["generatorID"] == device
    )


def once(range_: WindowRange, revision: int = 0) -> Counter[tuple[str, int]]:
    return Counter((rfc3339(start), revision) for start in range_.starts())


def hours_before(hours: int, count: int) -> WindowRange:
    """Return the range of some reconcile runs, each from five past the hour to the next."""
    start = hours_ago(hours)
    return windows(start.replace(minute=5), 60 * count)


def create_backfill(airflow: AirflowStack, range_: WindowRange, **more: Any) -> int:
    """Create a backfill as *Trigger* > *Backfill* in the UI does; return the number of runs."""
    body = {
        "dag_id": f"{airflow.name}_reconcile",
        "from_date": rfc3339(range_.start),
        # Both dates are inclusive.
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
def test_two_missed_hours_are_healed_after_airflow_starts(
    airflow: AirflowStack, missed: WindowRange
) -> None:
    """The first reconcile run after the start computes these windows."""
    assert revisions(airflow, "early") == once(missed)

    def missing() -> int:
        done = airflow.installation.headrace("status", "--json")
        return int(json.loads(done.stdout)["windows"]["missing"])

    wait_for(lambda: missing() == 0, 120, 2)
    # Healing did not delay live windows. The first one was already late when Airflow started.
    live = wait_for(
        lambda: [run for run in airflow.runs("windows")[:-1] if run["state"] == "success"], 150
    )
    for run in live:
        started = parse_time(run["start_date"]) - parse_time(run["data_interval_end"])
        assert started < timedelta(seconds=30)


def test_a_backfill_publishes_windows_and_late_readings_correct_them(airflow: AirflowStack) -> None:
    """A backfill of two hours in two runs; then late readings, and a run for three windows."""
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
def test_a_day_is_backfilled_in_24_runs(airflow: AirflowStack) -> None:
    day = hours_before(72, 24)
    airflow.installation.store(*(("daily", start, {}) for start in day.starts()))
    assert create_backfill(airflow, day) == 24
    assert revisions(airflow, "daily") == once(day)
    # Computing the day again publishes nothing.
    assert create_backfill(airflow, day, reprocess_behavior="completed") == 24
    assert revisions(airflow, "daily") == once(day)
