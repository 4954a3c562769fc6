"""Readings reach a consumer as rows, computed by runs that Airflow's scheduler starts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from headrace.models.window import parse_time
from tests.support.airflow import AirflowStack
from tests.support.processes import Process, wait_for


@pytest.fixture(scope="module")
def ingest(running_airflow: AirflowStack) -> list[Process]:
    installation = running_airflow.installation
    workers = [installation.worker("bridge"), installation.worker("sink")]
    workers[0].start()
    workers[1].launch()
    workers.append(installation.worker("simulate", "--generators", "10", "--interval", "2-4"))
    workers[2].launch()
    return workers


@pytest.mark.runs("dag:windows")
def test_consumers_receive_each_window_once(airflow: AirflowStack, ingest: list[Process]) -> None:
    assert all(worker.alive for worker in ingest)
    # The first window is incomplete because ingest starts during it; the next one is complete.
    airflow.next_live_window()
    begun = datetime.now(UTC)
    run = airflow.next_live_window()
    assert run["state"] == "success"
    states = {
        task["task_id"]: task["state"] for task in airflow.tasks("windows", run["dag_run_id"])
    }
    assert states == dict.fromkeys(
        ["await_ingest", "downsample", "evaluate_alarms", "republish"], "success"
    )
    start = parse_time(run["data_interval_start"])
    rows = wait_for(
        lambda: [
            row for row in airflow.installation.rows() if parse_time(row["window_start"]) == start
        ]
    )
    assert start <= begun
    assert Counter(row["generatorID"] for row in rows) == Counter(
        f"generator{number}" for number in range(1, 11)
    )
    for row in rows:
        assert row["alarm"] == ("refuel" if row["fuel"] < 500 else "no action")
        assert row["region"] == "US"
        assert row["readings"] >= 14
        assert row["revision"] == 0
    # Consumers receive the same rows that InfluxDB stores.
    with airflow.installation.admin_influx() as influx:
        stored = influx.run(
            "from(bucket: params.bucket) |> range(start: params.start, stop: params.stop)"
            ' |> filter(fn: (r) => r._field == "fuel") |> group()',
            {
                "bucket": airflow.installation.profile.buckets.downsampled,
                "start": start,
                "stop": parse_time(run["data_interval_end"]),
            },
        )
    assert {row["generatorID"]: row["_value"] for row in stored} == {
        row["generatorID"]: row["fuel"] for row in rows
    }


@pytest.mark.runs("cli:bridge", "cli:sink", "cli:simulate")
def test_the_workers_stop_when_asked(ingest: list[Process]) -> None:
    assert [worker.stop(60) for worker in reversed(ingest)] == [0, 0, 0]
