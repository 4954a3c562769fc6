"""Mails about a stage: their text, and what is stored if they can't be sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.errors import (
    AccessDeniedError,
    QualityError,
    RawDataGoneError,
    ServerUnavailableError,
)
from headrace.orchestration import alerts
from headrace.orchestration.next_steps import next_step

HOSTILE = "<img src=x onerror=alert(1)> [red]x {{ ti.task_id }}"


class KeptVariables:
    """Airflow's Variables, in a dictionary."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}

    def get(self, name: str, default: Any = None) -> Any:
        return self.content.get(name, default)

    def set(self, name: str, value: str, description: str) -> None:
        assert description
        self.content[name] = value

    def delete(self, name: str) -> None:
        del self.content[name]


class Post:
    """A mail server that keeps its mails and can be down."""

    def __init__(self) -> None:
        self.mails: list[dict[str, Any]] = []
        self.down = False

    def __call__(self, **mail: Any) -> Any:
        def notify(context: Any) -> None:
            assert context
            if self.down:
                raise ConnectionRefusedError
            self.mails.append(mail)

        return SimpleNamespace(notify=notify)

    @property
    def subjects(self) -> list[str]:
        return [mail["subject"].removeprefix("[headrace] dag.task ") for mail in self.mails]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> KeptVariables:
    kept = KeptVariables()
    monkeypatch.setattr(alerts, "Variable", kept)
    return kept


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: KeptVariables) -> Post:
    assert variables.content == {}
    post = Post()
    monkeypatch.setattr(alerts, "MailNotifier", post)
    monkeypatch.setattr(alerts.conf, "get", lambda *_, **__: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return post


def context(error: object = None, run: str = "run1", **more: Any) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="dag",
        task_id="task",
        run_id=run,
        map_index=-1,
        try_number=1,
        max_tries=5,
        start_date=datetime.now(UTC) + timedelta(seconds=1),
        log_url="http://airflow.example.org/dags/dag/runs/run1?a=1&b='x'",
    )
    return {"ti": ti, "exception": error, **more}


def test_a_mail_has_the_failure_and_the_next_step(post: Post) -> None:
    alerts.on_failure(context(AccessDeniedError("InfluxDB answered 401")))
    (mail,) = post.mails
    text = mail["html_content"]
    assert mail["subject"] == "[headrace] dag.task failed"
    for expected in ("AccessDeniedError: InfluxDB answered 401", "1 of 6", "headrace provision"):
        assert expected in text
    assert "href='http://airflow.example.org/dags/dag/runs/run1?a=1&amp;b=&#x27;x&#x27;'" in text


def test_values_from_devices_and_servers_are_escaped_in_mails(post: Post) -> None:
    alerts.on_failure(context(QualityError(f"{HOSTILE} at the fail level", checks=(HOSTILE,))))
    alerts.on_failure(context(ServerUnavailableError(HOSTILE), run=HOSTILE))
    for mail in post.mails:
        assert "<img" not in mail["html_content"]
        assert "&lt;img src=x onerror=alert(1)&gt; [red]x {{ ti.task_id }}" in mail["html_content"]


def test_a_second_cause_is_mailed_and_names_the_first(post: Post) -> None:
    alerts.on_failure(context(QualityError("a", checks=("completeness",))))
    alerts.on_failure(context(QualityError("b", checks=("completeness", "freshness"))))
    assert post.subjects == ["failed", "failed for another reason"]
    assert "check completeness (since " in post.mails[1]["html_content"]
    assert "check freshness (since " in post.mails[1]["html_content"]


def test_a_mail_that_cannot_be_sent_is_sent_at_the_next_failure(
    post: Post, variables: KeptVariables
) -> None:
    post.down = True
    with pytest.raises(ConnectionRefusedError):
        alerts.on_failure(context(AccessDeniedError("x")))
    assert variables.content == {}
    post.down = False
    alerts.on_failure(context(AccessDeniedError("x")))
    assert post.subjects == ["failed"]


def test_recovery_is_mailed_once_and_clears_the_variable(
    post: Post, variables: KeptVariables
) -> None:
    alerts.on_success(context())
    alerts.on_failure(context(AccessDeniedError("x")))
    alerts.on_success(context(run="run2"))
    alerts.on_success(context(run="run3"))
    assert post.subjects == ["failed", "works again"]
    assert [name for name in variables.content if "failing" in name] == []


@pytest.mark.parametrize(
    "text", ['{"since": "2026-01-01T00:00:00Z", "run": "x"}', "yes", "", "[]", "null"]
)
def test_an_unreadable_variable_is_replaced(
    post: Post, variables: KeptVariables, text: str
) -> None:
    variables.content["headrace_failing__dag__task"] = text
    alerts.on_failure(context(AccessDeniedError("x")))
    alerts.on_success(context(run="run2"))
    assert post.subjects[-1] == "works again"


def test_every_error_has_a_next_step() -> None:
    errors = (AccessDeniedError("x"), RawDataGoneError("x"), KeyError("x"), None, "killed")
    steps = [next_step(error) for error in errors]
    assert all(step.endswith(".") for step in steps)
    assert len(set(steps)) == 3
