"""E-mails: one when a stage goes from good to failed, one when it recovers."""

from __future__ import annotations

import fcntl
import html
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import Variable, conf

from headrace.errors import ConfigurationError
from headrace.models.window import rfc3339
from headrace.orchestration.connections import SMTP_CONN_ID, task_settings
from headrace.orchestration.ranges import run_range

__all__ = ["on_failure", "on_success"]

_log = structlog.get_logger(__name__)


def on_failure(context: Any) -> None:
    """Mail that a stage has failed for good, unless that is known already.

    Airflow calls it after the last try, and not for a retry. What is known is kept in an
    Airflow Variable, where a person can see it, too.
    """
    ti = context["ti"]
    name = _variable(ti)
    with _one_at_a_time():
        failing = Variable.get(name, default=None)
        if failing is not None:
            _log.info("already reported", stage=ti.task_id, since=failing)
            return
        error = context.get("exception")
        _send(
            context,
            f"[headrace] {ti.dag_id}.{ti.task_id} failed",
            "A stage has failed for good. There will be no further mail about it until it works "
            "again.",
            {"error": _error_text(error)},
        )
        since = {"since": rfc3339(datetime.now(UTC)), "run": ti.run_id}
        Variable.set(name, json.dumps(since), description="Set while this stage fails")


def on_success(context: Any) -> None:
    """Mail that a stage works again, if it had failed."""
    ti = context["ti"]
    name = _variable(ti)
    if Variable.get(name, default=None) is None:
        return
    with _one_at_a_time():
        failing = Variable.get(name, default=None)
        if failing is None:
            return
        since = json.loads(failing)["since"]
        _send(
            context,
            f"[headrace] {ti.dag_id}.{ti.task_id} works again",
            f"A stage that had failed since {since} has succeeded.",
            {},
        )
        Variable.delete(name)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep other tasks of this machine waiting: pieces of a range fail at the same moment."""
    path = Path(conf.get("logging", "base_log_folder")) / "alerts.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _variable(ti: Any) -> str:
    return f"headrace_failing__{ti.dag_id}__{ti.task_id}"


def _window_text(context: Mapping[str, Any]) -> str:
    _, profile = task_settings()
    try:
        return str(run_range(context, profile))
    except ConfigurationError as exc:
        # The parameters may be what the failure is about.
        return f"none: {exc}"


def _error_text(error: object) -> str:
    if isinstance(error, BaseException):
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        return f"{type(error).__name__}: {error}{notes}"
    return str(error or "the worker died")


def _send(context: Any, subject: str, sentence: str, more: Mapping[str, str]) -> None:
    settings, _ = task_settings()
    ti = context["ti"]
    facts = {
        "DAG": ti.dag_id,
        "task": ti.task_id,
        "run": ti.run_id,
        "window": _window_text(context),
        "tries": f"{ti.try_number} of {ti.max_tries + 1}",
        **more,
    }
    rows = "".join(
        f"<tr><th align='left' valign='top'>{html.escape(name)}</th>"
        f"<td><pre style='white-space: pre-wrap'>{html.escape(text)}</pre></td></tr>"
        for name, text in facts.items()
    )
    link = html.escape(ti.log_url, quote=True)
    # Made anew for every mail: a notifier keeps what it has rendered.
    SmtpNotifier(
        smtp_conn_id=SMTP_CONN_ID,
        to=settings.alert_to,
        from_email=settings.alert_from,
        subject=subject,
        html_content=f"<p>{html.escape(sentence)}</p><table cellpadding='4'>{rows}</table>"
        f"<p><a href='{link}'>Open the log of this try</a></p>",
    ).notify(context)
    _log.info("mailed", to=settings.alert_to, subject=subject)
