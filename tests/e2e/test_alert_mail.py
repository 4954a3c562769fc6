"""A stage that fails for good is mailed, once, with a link that works."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import urllib3

from headrace.models.window import floor
from tests.support.airflow import AirflowStack
from tests.support.processes import wait_for

MINUTE = timedelta(minutes=1)


def test_failure_is_mailed_once_and_so_is_recovery(airflow: AirflowStack) -> None:
    installation = airflow.installation
    token = installation.settings.tokens_dir / "airflow.token"
    good = token.read_text()
    stop = floor(datetime.now(UTC), MINUTE) - 10 * MINUTE
    try:
        token.write_text("a-wrong-token")
        failed = [airflow.heal(stop - MINUTE, stop), airflow.heal(stop - MINUTE, stop)]
    finally:
        token.write_text(good)
    assert [run["state"] for run in failed] == ["failed", "failed"]
    task = airflow.wait_for_task(
        "reconcile", failed[0]["dag_run_id"], "heal.downsample", ("failed",)
    )
    # A wrong token is not tried again.
    assert task["try_number"] == 1
    subject = f"[headrace] {airflow.name}_reconcile.heal.downsample failed"
    (mail,) = wait_for(
        lambda: [mail for mail in airflow.mailbox.mails if mail["Subject"] == subject]
    )
    assert mail["To"] == "operators@example.org"
    body = mail.get_body(("html",))
    assert body is not None
    text = body.get_content()
    for expected in (
        f"{airflow.name}_reconcile",
        "heal.downsample",
        str(stop - MINUTE)[:10],
        "1 of 6",
        "AccessDeniedError: InfluxDB answered 401",
        "while running count_raw.flux",
    ):
        assert expected in text
    assert good.strip() not in text
    link = re.search(r"href='([^']+)'", text)
    assert link is not None
    url = link[1].replace("&amp;", "&")
    assert url.startswith(f"http://127.0.0.1:{airflow.port}/dags/{airflow.name}_reconcile/")
    assert urllib3.request("GET", url).status == 200
    assert airflow.heal(stop - MINUTE, stop)["state"] == "success"
    recovered = f"[headrace] {airflow.name}_reconcile.heal.downsample works again"
    wait_for(lambda: airflow.mailbox.subjects(recovered))
    about = airflow.mailbox.subjects("reconcile.heal.downsample")
    assert sorted(about) == sorted([subject, recovered])
