"""A failed quality check fails its run without a retry and sends the results by mail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from headrace.models.window import WindowRange, rfc3339
from tests.support.airflow import AirflowStack
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, windows

DEVICES = [f"tested{number}" for number in range(8)]
#: Readings of each device in a window: as many as its interval implies.
PROMISED = 4


def judge(airflow: AirflowStack, range_: WindowRange) -> dict[str, Any]:
    """Run the quality checks of a range manually."""
    run = airflow.trigger("quality", start=rfc3339(range_.start), stop=rfc3339(range_.stop))
    return airflow.wait_for_run("quality", run)


@pytest.mark.runs("dag:quality")
def test_a_failed_check_is_mailed_as_a_table(airflow: AirflowStack, missed: WindowRange) -> None:
    """All generators but one send nothing for five minutes."""
    installation = airflow.installation
    good = windows(missed.start + 20 * MINUTE, 5)
    bad = windows(missed.start + 40 * MINUTE, 5)
    installation.store(
        *(
            (device, start + number * timedelta(seconds=15), {})
            for range_, devices in ((good, DEVICES), (bad, DEVICES[:1]))
            for device in devices
            for start in range_.starts()
            for number in range(PROMISED)
        )
    )
    installation.compute(good)
    installation.compute(bad)

    # Start with a successful run, so that the failure is new.
    assert judge(airflow, good)["state"] == "success"
    failed = judge(airflow, bad)
    assert failed["state"] == "failed"
    (task,) = airflow.tasks("quality", failed["dag_run_id"])
    # A failed check is not retried.
    assert task["try_number"] == 1
    subject = f"[headrace] {airflow.name}_quality.check_quality failed"

    def mailed() -> list[str]:
        bodies = [m.get_body(("html",)) for m in airflow.mailbox.mails if m["Subject"] == subject]
        texts = [body.get_content() for body in bodies if body is not None]
        return [text for text in texts if str(bad) in text]

    (text,) = wait_for(mailed)
    (line,) = [line for line in text.splitlines() if line.startswith("completeness")]
    assert line.split()[1] == "fail"
    for heading in ("measured", "warn at", "fail at"):
        assert heading in text
    # The mail names exactly the generators that sent nothing.
    assert all(device in line for device in DEVICES[1:])
    assert DEVICES[0] not in line
    # The windows are published and not healed.
    rows = [row for row in installation.rows() if row["generatorID"] == DEVICES[0]]
    assert {row["revision"] for row in rows} == {0}

    assert judge(airflow, good)["state"] == "success"
    wait_for(lambda: airflow.mailbox.subjects("quality.check_quality works again"))
