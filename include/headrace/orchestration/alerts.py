"""Sends e-mails about stages: each new cause of a failure, a daily reminder, the recovery."""

from __future__ import annotations

import fcntl
import html
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from airflow.sdk import Variable, conf

from headrace.errors import ConfigurationError
from headrace.models.window import rfc3339
from headrace.orchestration.connections import SMTP_CONN_ID, task_settings
from headrace.orchestration.failing_stage import (
    Decision,
    FailingStage,
    Failure,
    MailKind,
    Success,
    causes_of,
    decide,
    error_text,
    lately,
    read_recoveries,
    read_state,
    recoveries_json,
    recovers,
)
from headrace.orchestration.mail import MailNotifier
from headrace.orchestration.next_steps import next_step
from headrace.orchestration.ranges import run_range

__all__ = ["on_failure", "on_success"]

_log = structlog.get_logger(__name__)

_DESCRIPTION = "Causes for which this stage fails. Headrace deletes it when the stage recovers."
_RECOVERED = "When this stage last recovered."
_ALTERNATES = (
    " It has recovered {times} times within a day. Its next recovery is mailed after it has "
    "worked for two hours."
)
_SENTENCES = {
    MailKind.FAILED: "This stage failed, and no further retry follows. While it fails, a mail "
    "follows for each new cause, and a reminder once a day.",
    MailKind.NEW_CAUSE: "This stage has failed since {since}. It now also fails for another "
    "reason.",
    MailKind.REMINDER: "This stage has failed since {since}, and still fails.",
}


def on_failure(context: Any) -> None:
    """Send a mail, if one is due, about a stage that failed after its last retry.

    Airflow calls this after the last try. Known causes are stored in an Airflow
    Variable, where an operator can see them.
    """
    ti = context["ti"]
    error = context.get("exception")
    failure = Failure(datetime.now(UTC), ti.run_id, _piece(ti), causes_of(error))
    with _one_at_a_time():
        state = _read(ti)
        decision = decide(state, failure, () if state else _recoveries(ti))
        if decision.mail is None:
            _log.info("known failure, no mail", stage=ti.task_id, causes=failure.causes)
        else:
            _send_failure(context, decision, decision.mail, error)
        # Store the state after the mail: if sending fails, the next failure tries again.
        Variable.set(_variable(ti), decision.state.to_json(), description=_DESCRIPTION)


def on_success(context: Any) -> None:
    """Send a mail about the recovery of a stage that had failed."""
    ti = context["ti"]
    if Variable.get(_variable(ti), default=None) is None:
        return
    with _one_at_a_time():
        state = _read(ti)
        if state is None:
            return
        left = recovers(state, Success(_started(ti), ti.run_id, _piece(ti)))
        if left is None:
            _send(
                context,
                f"[headrace] {ti.dag_id}.{ti.task_id} works again",
                f"This stage had failed since {rfc3339(state.since)}. It has now succeeded.",
                {},
            )
            now = datetime.now(UTC)
            recovered = recoveries_json([*lately(state.recoveries, now), now])
            Variable.set(_recovered(ti), recovered, description=_RECOVERED)
            Variable.delete(_variable(ti))
        elif left != state:
            Variable.set(_variable(ti), left.to_json(), description=_DESCRIPTION)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lock out other tasks on this machine, because pieces of a range fail at the same time."""
    folder = Path(conf.get("logging", "base_log_folder", fallback=""))
    if not os.access(folder, os.W_OK):
        # Where logs go elsewhere, there may be no such folder.
        folder = Path(tempfile.gettempdir())
    with (folder / "alerts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _variable(ti: Any) -> str:
    return f"headrace_failing__{ti.dag_id}__{ti.task_id}"


def _recovered(ti: Any) -> str:
    return f"headrace_recovered__{ti.dag_id}__{ti.task_id}"


def _recoveries(ti: Any) -> tuple[datetime, ...]:
    try:
        return read_recoveries(Variable.get(_recovered(ti), default=None))
    except ValueError:
        return ()


def _read(ti: Any) -> FailingStage | None:
    try:
        return read_state(Variable.get(_variable(ti), default=None))
    except ValueError:
        # An older version or a person wrote it. It means that the stage fails.
        _log.warning("unreadable Variable is replaced", variable=_variable(ti))
        now = datetime.now(UTC)
        return FailingStage(now, "", (), datetime.fromtimestamp(0, UTC), mailed=now)


def _piece(ti: Any) -> int:
    index = getattr(ti, "map_index", None)
    return -1 if index is None else int(index)


def _started(ti: Any) -> datetime:
    moment = getattr(ti, "start_date", None)
    return datetime.fromisoformat(moment.isoformat()) if moment else datetime.now(UTC)


def _window_text(context: Mapping[str, Any]) -> str:
    _, profile = task_settings()
    try:
        return str(run_range(context, profile))
    except ConfigurationError as exc:
        # Wrong parameters can be the cause of the failure.
        return f"none: {exc}"


def _send_failure(context: Any, decision: Decision, kind: MailKind, error: object) -> None:
    ti = context["ti"]
    state = decision.state
    more = {"error": error_text(error), "next step": next_step(error)}
    others = [f"{name} (since {rfc3339(cause.since)})" for name, cause in state.causes.items()]
    if kind is not MailKind.FAILED:
        more["all causes"] = "\n".join(others)
    sentence = _SENTENCES[kind].format(since=rfc3339(state.since))
    if state.alternates:
        sentence += _ALTERNATES.format(times=len(state.recoveries))
    _send(context, f"[headrace] {ti.dag_id}.{ti.task_id} {kind.value}", sentence, more)


def _send(context: Any, subject: str, sentence: str, more: Mapping[str, str]) -> None:
    settings, _ = task_settings()
    ti = context["ti"]
    facts = {
        "DAG": ti.dag_id,
        "task": ti.task_id,
        "run": ti.run_id,
        "window": _window_text(context),
        "try": f"{ti.try_number} of {ti.max_tries + 1}",
        **more,
    }
    rows = "".join(
        f"<tr><th align='left' valign='top'>{html.escape(name)}</th>"
        f"<td><pre style='white-space: pre-wrap'>{html.escape(text)}</pre></td></tr>"
        for name, text in facts.items()
    )
    link = html.escape(ti.log_url, quote=True)
    # Create a new notifier for every mail, because it keeps its rendered text.
    notifier = MailNotifier(
        smtp_conn_id=SMTP_CONN_ID,
        to=settings.alert_to,
        from_email=settings.alert_from,
        subject=subject,
        html_content=f"<p>{html.escape(sentence)}</p><table cellpadding='4'>{rows}</table>"
        f"<p><a href='{link}'>Open the log of this try</a></p>",
    )
    notifier.notify(context)
    _log.info("mail sent", to=settings.alert_to, subject=subject)
