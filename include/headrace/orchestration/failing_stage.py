"""What is known about a stage that fails, and which of its failures are worth a mail.

Pure: `headrace.orchestration.alerts` keeps the state in an Airflow Variable and sends the
mails. One mail is due for each new cause, one a day while the stage still fails, and one when
it works again. A cause is the type of an error and its message without numbers; a failed
quality check is a cause of its own.
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

#: While a stage fails, a mail reminds of it so often. A cause that has not been seen for so
#: long counts as new.
REMINDER_INTERVAL = timedelta(days=1)
#: Causes of one stage that are mailed in a day. The rest is in the next reminder.
MOST_CAUSES_A_DAY = 8
#: A stage that recovered so often within a day alternates. Its next recovery is mailed only
#: after it has not failed for `QUIET`.
MOST_RECOVERIES_A_DAY = 3
QUIET = timedelta(hours=2)
#: Causes that are remembered.
_MOST_CAUSES = 50
_LONGEST_CAUSE = 200

_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "#"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "#"),
    # Hexadecimal ids: long, and with a digit in them, so that words stay.
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{12,}\b", re.IGNORECASE), "#"),
    (re.compile(r"[-+]?\d+([.:,T-]\d+)*(Z\b)?"), "#"),
)


class MailKind(StrEnum):
    """Why a mail is sent."""

    FAILED = "failed"
    NEW_CAUSE = "failed for another reason"
    REMINDER = "still fails"


@dataclass(frozen=True)
class Failure:
    """A stage that failed and is not retried any more.

    Parameters
    ----------
    at
        When.
    run, piece
        The run, and the number of the mapped piece in it (-1 without pieces).
    causes
        What `causes_of` makes of the error.
    """

    at: datetime
    run: str
    piece: int
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Success:
    """A stage that has succeeded.

    Parameters
    ----------
    started
        When its try began.
    run, piece
        As for `Failure`.
    """

    started: datetime
    run: str
    piece: int


class Cause(msgspec.Struct, frozen=True):
    """One reason for which a stage fails: when it was first and last seen."""

    since: datetime
    seen: datetime


class FailingStage(msgspec.Struct, frozen=True):
    """State of a stage that fails.

    Parameters
    ----------
    since
        First failure since it last worked.
    run, pieces, last
        Run of the newest failure, the pieces that failed in it, and when.
    causes
        Known causes.
    mailed
        When the last mail went out.
    mails
        When the mails of the last day about causes went out.
    recoveries
        When the stage recovered within the day before it failed.
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
        """Whether the stage fails and recovers again and again."""
        return len(self.recoveries) >= MOST_RECOVERIES_A_DAY

    def to_json(self) -> str:
        """Write the state for an Airflow Variable."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class Decision:
    """What follows from a failure.

    Parameters
    ----------
    state
        The new state, if no mail is due or once it is sent.
    mail
        The mail that is due, if one is.
    """

    state: FailingStage
    mail: MailKind | None


def read_state(text: str | None) -> FailingStage | None:
    """Read the state that an Airflow Variable holds; `None` if it holds none.

    Raises
    ------
    ValueError
        If the text is something else: a person can edit Variables.
    """
    if text is None:
        return None
    return msgspec.json.decode(text, type=FailingStage)


def error_text(error: object) -> str:
    """Type, message and notes of an error."""
    if isinstance(error, BaseException):
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        return f"{type(error).__name__}: {error}{notes}"
    return str(error or "the worker died")


def causes_of(error: object) -> tuple[str, ...]:
    """What tells this error from others: what two failures for one reason have in common.

    The type of the error and the first line of its message, without numbers, times and ids.
    Where the error names failed checks, each check is a cause.
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
    """Take a failure into the state, and say which mail is due.

    Parameters
    ----------
    state
        What is known; `None` if the stage has not failed since it last succeeded.
    failure
        The failure.
    recoveries
        When the stage recovered lately; needed only without a state.
    """
    now = failure.at
    known = state.causes if state else {}
    # A clock that was ahead must not keep the mails back until it is that late again.
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
    """Take a success into the state; `None` if the stage works again.

    Pieces of one run succeed and fail side by side, and so do neighbouring runs. A success
    counts if it began after the newest failure. In the run that failed, only the pieces
    that failed count.
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
    """The moments that are less than a day away."""
    return tuple(moment for moment in moments if abs(now - moment) < REMINDER_INTERVAL)


def read_recoveries(text: str | None) -> tuple[datetime, ...]:
    """Read the moments that an Airflow Variable holds.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    return msgspec.json.decode(text, type=tuple[datetime, ...]) if text else ()


def recoveries_json(moments: Iterable[datetime]) -> str:
    """Write moments for an Airflow Variable."""
    return msgspec.json.encode(tuple(moments)).decode()


def _seen_again(cause: Cause, now: datetime) -> Cause:
    return msgspec.structs.replace(cause, seen=now)


def _mailed(state: FailingStage, kind: MailKind) -> Decision:
    mails = (*state.mails, state.last)
    return Decision(msgspec.structs.replace(state, mailed=state.last, mails=mails), kind)


def _newest(causes: dict[str, Cause]) -> dict[str, Cause]:
    ordered = sorted(causes.items(), key=lambda item: item[1].seen, reverse=True)
    return dict(ordered[:_MOST_CAUSES])
