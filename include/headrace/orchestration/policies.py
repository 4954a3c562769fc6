"""Retry policies of the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from headrace.checks.durations import duration_text
from headrace.errors import PermanentError, QualityError
from headrace.profile import Profile
from headrace.profile_retries import CLEANUP_RETRIES, Retries, StageRetries

__all__ = [
    "CLEANUP",
    "STAGES",
    "StagePolicy",
    "call_limit",
    "longest_run",
    "longest_wait",
    "retry_cells",
    "retry_table",
    "stage_policy",
]

#: The only task that belongs to no profile.
CLEANUP = "cleanup"
_HEADER = ("stage", "tries", "delay", "backoff", "limit of one try")


@dataclass(frozen=True)
class StagePolicy:
    """Retry policy of a stage.

    Parameters
    ----------
    retries
        Number of tries, pauses, and time limit of one try.
    never
        Errors after which there is no retry.
    why
        Reason for the policy.
    """

    retries: StageRetries
    never: tuple[type[Exception], ...]
    why: str

    def task_args(self) -> dict[str, Any]:
        """Return the policy as arguments of a task."""
        return {
            "retries": self.retries.tries - 1,
            "retry_delay": self.retries.delay,
            "retry_exponential_backoff": self.retries.backoff,
            "max_retry_delay": self.retries.max_delay,
            "execution_timeout": self.retries.limit,
            "retry_policy": ExceptionRetryPolicy(
                rules=[
                    RetryRule(
                        exception=list(self.never),
                        action=RetryAction.FAIL,
                        reason="a retry would fail in the same way",
                    )
                ]
            ),
        }


@dataclass(frozen=True)
class _Stage:
    """Parts of a stage's retry policy that a profile cannot change.

    Parameters
    ----------
    why
        Reason for the default.
    never
        Errors after which there is no retry.
    call
        Time limit of one call to InfluxDB, as a share of the limit of one try.
    """

    why: str
    never: tuple[type[Exception], ...] = (PermanentError,)
    call: float = 0.6


STAGES = {
    "await_ingest": _Stage(
        "A short outage of Kafka must not cost a window. A sink that is behind is not an error: "
        "the window is computed unsettled, and healed later.",
    ),
    "find": _Stage(
        "InfluxDB may be restarting. The run an hour later finds what this run did not.",
    ),
    "downsample": _Stage(
        "InfluxDB may be restarting, which takes less than a minute and a half. Waiting does "
        "not correct a wrong token or a mistake in a Flux file.",
    ),
    "evaluate_alarms": _Stage("The same as downsample, because the server is the same."),
    "republish": _Stage(
        "Two servers may be restarting, or another publisher may have taken over. A retry "
        "never publishes anything twice.",
        call=0.3,
    ),
    "check_quality": _Stage(
        "A server may be restarting. A failed check is not repeated: its data do not change.",
        never=(PermanentError, QualityError),
        call=0.4,
    ),
    CLEANUP: _Stage("No other task waits for it, and the next day's run deletes what is left."),
}


def stage_policy(stage: str, profile: Profile | None = None) -> StagePolicy:
    """Return the policy of a stage.

    Parameters
    ----------
    stage
        The stage.
    profile
        The profile that may change the defaults.
    """
    known = STAGES[stage]
    return StagePolicy(_retries(stage, profile), known.never, known.why)


def call_limit(stage: str) -> Callable[[Profile], timedelta]:
    """Return a function that derives the time limit of one InfluxDB call from the profile."""
    return lambda profile: STAGES[stage].call * _retries(stage, profile).limit


def longest_wait(stages: Iterable[str], profile: Profile) -> timedelta:
    """Return the time that a run can spend between the tries of its stages."""
    waits = (_retries(stage, profile).longest_wait for stage in stages)
    return sum(waits, timedelta(0))


def longest_run(stages: Iterable[str], profile: Profile) -> timedelta:
    """Return the time of a run whose last tries take their limit and whose others fail at once."""
    stages = list(stages)
    limits = (_retries(stage, profile).limit for stage in stages)
    return sum(limits, longest_wait(stages, profile))


def _retries(stage: str, profile: Profile | None) -> StageRetries:
    if stage == CLEANUP:
        return CLEANUP_RETRIES
    retries: StageRetries = getattr(profile.retries if profile else Retries(), stage)
    return retries


def retry_cells(stage: str, retries: StageRetries) -> list[str]:
    """Return the cells of a stage in a table of retries."""
    backoff = f"x {retries.backoff:g}, at most {duration_text(retries.max_delay)}"
    return [
        f"`{stage}`",
        str(retries.tries),
        duration_text(retries.delay),
        backoff if retries.backoff > 1 else "",
        duration_text(retries.limit),
    ]


def retry_table(stages: Iterable[str], profile: Profile) -> str:
    """Return the retries of stages as a Markdown table."""
    rows = [retry_cells(stage, _retries(stage, profile)) for stage in stages]
    lines = [_HEADER, ["-"] * len(_HEADER), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
