"""Decides which failures of a stage are mailed.

This module has no I/O: `headrace.orchestration.alerts` keeps the state in an Airflow Variable
and sends the mails. There is one mail for each new cause, one a day while the stage still fails,
and one when it recovers. A cause is the type of an error and its message without numbers. Each
failed quality check is a separate cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "MOST_CAUSES_A_DAY",
    "MOST_RECOVERIES_A_DAY",
    "QUIET",
    "REMINDER_INTERVAL",
    "Cause",
    "Decision",
    "FailingStage",
    "Failure",
    "MailKind",
    "Success",
    "causes_of",
    "decide",
    "error_text",
    "lately",
    "read_recoveries",
    "read_state",
    "recoveries_json",
    "recovers",
]

#: Time between reminders while a stage fails. A cause that did not occur for this time counts
#: as new.
REMINDER_INTERVAL = timedelta(days=1)
#: Maximum number of causes per stage and day that are mailed. The reminder lists the others.
MOST_CAUSES_A_DAY = 8
#: A stage that recovered this often within a day alternates. Its next recovery is mailed only
#: after `QUIET` without a failure.
MOST_RECOVERIES_A_DAY = 3
QUIET = timedelta(hours=2)
#: Maximum number of stored causes.
_MOST_CAUSES = 50
_LONGEST_CAUSE = 200

_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "#"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "#"),
    # Hexadecimal ids. They are long and contain a digit, so words do not match.
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{12,}\b", re.IGNORECASE), "#"),
    (re.compile(r"[-+]?\d+([.:,T-]\d+)*(Z\b)?"), "#"),
)


class MailKind(StrEnum):
    """Reason for a mail."""

    FAILED = "failed"
    NEW_CAUSE = "failed for another reason"
    REMINDER = "still fails"


@dataclass(frozen=True)
class Failure:
    """A failure of a stage after its last retry.

    Parameters
    ----------
    at
        Time of the failure.
    run, piece
        The run and the number of its mapped piece (-1 without pieces).
    causes
        Causes of the error, from `causes_of`.
    """

    at: datetime
    run: str
    piece: int
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Success:
    """A success of a stage.

    Parameters
    ----------
    started
        Start of the try.
    run, piece
        As for `Failure`.
    """

    started: datetime
    run: str
    piece: int


class Cause(msgspec.Struct, frozen=True):
    """One cause of failures, with the times of its first and last occurrence."""

    since: datetime
    seen: datetime


class FailingStage(msgspec.Struct, frozen=True):
    """State of a failing stage.

    Parameters
    ----------
    since
        First failure after the last success.
    run, pieces, last
        Run of the newest failure, its failed pieces, and the time of the failure.
    causes
        Known causes.
    mailed
        Time of the last mail.
    mails
        Times of the mails about causes within the last day.
    recoveries
        Recoveries within the day before the failure.
    """

    since: datetime
    run: str
    pieces: tuple[int, ...]
    last: datetime
    causes: dict[str, Cause] = {}
    mailed: datetime | None = None
    mails: tuple[datetime, ...] = ()
    recoveries: tuple[datetime, ...] = ()

    @property
    def alternates(self) -> bool:
        """Whether the stage fails and recovers repeatedly."""
        return len(self.recoveries) >= MOST_RECOVERIES_A_DAY

    def to_json(self) -> str:
        """Encode the state for an Airflow Variable."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class Decision:
    """New state and mail after a failure.

    Parameters
    ----------
    state
        The new state. If a mail is due, it applies after the mail is sent.
    mail
        The mail to send, if any.
    """

    state: FailingStage
    mail: MailKind | None


def read_state(text: str | None) -> FailingStage | None:
    """Decode the state in an Airflow Variable; `None` if the Variable is empty.

    Raises
    ------
    ValueError
        If the text is not a state, because people can edit Variables.
    """
    if text is None:
        return None
    return msgspec.json.decode(text, type=FailingStage)


def error_text(error: object) -> str:
    """Return type, message and notes of an error."""
    if isinstance(error, BaseException):
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        return f"{type(error).__name__}: {error}{notes}"
    return str(error or "the worker died")


def causes_of(error: object) -> tuple[str, ...]:
    """Return texts that are equal for two failures with the same cause.

    A text is the type of the error and the first line of its message, without numbers, times
    and ids. If the error names failed checks, each check is a cause.
    """
    checks: Any = getattr(error, "checks", ())
    if checks:
        return tuple(f"check {name}" for name in checks)
    text = error_text(error).partition("\n")[0]
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return (text[:_LONGEST_CAUSE],)


def decide(
    state: FailingStage | None, failure: Failure, recoveries: tuple[datetime, ...] = ()
) -> Decision:
    """Add a failure to the state and decide which mail is due.

    Parameters
    ----------
    state
        State before the failure; `None` if the stage did not fail.
    failure
        The failure.
    recoveries
        Recent recoveries; needed only without a state.
    """
    now = failure.at
    known = state.causes if state else {}
    # Times in the future come from a fast clock and must not suppress mails.
    causes = {name: c for name, c in known.items() if abs(now - c.seen) < REMINDER_INTERVAL}
    new = any(name not in causes for name in failure.causes)
    for name in failure.causes:
        before = causes.get(name)
        causes[name] = _seen_again(before, now) if before else Cause(now, now)
    again = state is not None and state.run == failure.run
    pieces = {failure.piece, *(state.pieces if state and again else ())}
    after = FailingStage(
        state.since if state else now,
        failure.run,
        tuple(sorted(pieces)),
        now,
        _newest(causes),
        state.mailed if state else None,
        lately(state.mails if state else (), now),
        state.recoveries if state else lately(recoveries, now),
    )
    if after.mailed is None:
        return _mailed(after, MailKind.FAILED)
    if new and len(after.mails) < MOST_CAUSES_A_DAY:
        return _mailed(after, MailKind.NEW_CAUSE)
    if abs(now - after.mailed) >= REMINDER_INTERVAL:
        return _mailed(after, MailKind.REMINDER)
    return Decision(after, None)


def recovers(state: FailingStage, success: Success) -> FailingStage | None:
    """Add a success to the state; return `None` if the stage has recovered.

    Pieces of a run, and neighbouring runs, can succeed and fail at the same time. A success
    counts if it started after the newest failure. In the failed run, only successes of the
    failed pieces count.
    """
    if success.started <= state.last:
        return state
    if state.alternates and success.started - state.last < QUIET:
        return state
    if success.run != state.run:
        return None
    left = tuple(piece for piece in state.pieces if piece != success.piece)
    if not left:
        return None
    return msgspec.structs.replace(state, pieces=left)


def lately(moments: Iterable[datetime], now: datetime) -> tuple[datetime, ...]:
    """Return the times that are less than a day away."""
    return tuple(moment for moment in moments if abs(now - moment) < REMINDER_INTERVAL)


def read_recoveries(text: str | None) -> tuple[datetime, ...]:
    """Decode the times in an Airflow Variable.

    Raises
    ------
    ValueError
        If the text is not a list of times.
    """
    return msgspec.json.decode(text, type=tuple[datetime, ...]) if text else ()


def recoveries_json(moments: Iterable[datetime]) -> str:
    """Encode times for an Airflow Variable."""
    return msgspec.json.encode(tuple(moments)).decode()


def _seen_again(cause: Cause, now: datetime) -> Cause:
    return msgspec.structs.replace(cause, seen=now)


def _mailed(state: FailingStage, kind: MailKind) -> Decision:
    mails = (*state.mails, state.last)
    return Decision(msgspec.structs.replace(state, mailed=state.last, mails=mails), kind)


def _newest(causes: dict[str, Cause]) -> dict[str, Cause]:
    ordered = sorted(causes.items(), key=lambda item: item[1].seen, reverse=True)
    return dict(ordered[:_MOST_CAUSES])
