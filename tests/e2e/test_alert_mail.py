"""A stage that fails for good sends one mail for each cause, with a working link."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3

from headrace.models.window import floor
from tests.e2e.conftest import PUBLIC_URL
from tests.support.airflow import AirflowStack
from tests.support.processes import wait_for

MINUTE = timedelta(minutes=1)


@pytest.mark.runs("dag:reconcile")
def test_each_cause_and_the_recovery_send_one_mail(airflow: AirflowStack) -> None:
    installation = airflow.installation
    token = installation.settings.tokens_dir / "airflow.token"
    good = token.read_text()
    stop = floor(datetime.now(UTC), MINUTE) - 10 * MINUTE
    task_id = "heal.downsample"
    try:
        token.write_text("a-wrong-token")
        failed = [airflow.heal(stop - MINUTE, stop), airflow.heal(stop - MINUTE, stop)]
    finally:
        token.write_text(good)
    assert [run["state"] for run in failed] == ["failed", "failed"]
    task = airflow.wait_for_task("reconcile", failed[0]["dag_run_id"], task_id, ("failed",))
    # A wrong token is not retried.
    assert task["try_number"] == 1
    stage = f"[headrace] {airflow.name}_reconcile.{task_id}"
    text = only_mail(airflow, f"{stage} failed")
    for expected in (
        f"{airflow.name}_reconcile",
        task_id,
        str(stop - MINUTE)[:10],
        "1 of 6",
        "AccessDeniedError: InfluxDB answered 401",
        "while running",
        "headrace provision",
    ):
        assert expected in text
    assert good.strip() not in text
    assert "0.0.0.0" not in text  # noqa: S104
    link = re.search(r"href='([^']+)'", text)
    assert link is not None
    url = link[1].replace("&amp;", "&")
    assert url.startswith(f"{PUBLIC_URL}/dags/{airflow.name}_reconcile/")
    here = url.replace(PUBLIC_URL, f"http://127.0.0.1:{airflow.port}")
    assert urllib3.request("GET", here).status == 200

    # The stage fails again, for another reason.
    flux = Path(airflow.environment["HEADRACE_FLUX_DIR"]) / "downsample.flux"
    right = flux.read_text()
    try:
        flux.write_text(right.replace("params.start", "params.begin"))
        assert airflow.heal(stop - MINUTE, stop)["state"] == "failed"
    finally:
        flux.write_text(right)
    second = only_mail(airflow, f"{stage} failed for another reason")
    assert "while running downsample.flux" in second
    assert "HEADRACE_FLUX_DIR" in second

    assert airflow.heal(stop - MINUTE, stop)["state"] == "success"
    recovered = f"{stage} works again"
    wait_for(lambda: airflow.mailbox.subjects(recovered))
    about = airflow.mailbox.subjects(f"reconcile.{task_id}")
    assert sorted(about) == sorted(
        [f"{stage} failed", f"{stage} failed for another reason", recovered]
    )


def only_mail(airflow: AirflowStack, subject: str) -> str:
    """Return the text of the only mail with this subject."""
    (mail,) = wait_for(
        lambda: [mail for mail in airflow.mailbox.mails if mail["Subject"] == subject]
    )
    assert mail["To"] == "operators@example.org"
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())
