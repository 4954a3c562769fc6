"""How often, how soon and for which errors each stage is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from headrace.errors import PermanentError, QualityError

__all__ = ["POLICIES", "StagePolicy"]


@dataclass(frozen=True)
class StagePolicy:
    """How a stage is tried.

    Parameters
    ----------
    tries
        How often in all.
    delay
        Wait before the second try.
    backoff
        By how much each further wait is longer than the one before.
    max_delay
        Longest wait.
    time_limit
        Longest time that one try may take.
    never
        Errors that are not tried again.
    why
        What the policy is for.
    """

    tries: int
    delay: timedelta
    backoff: float
    max_delay: timedelta
    time_limit: timedelta
    never: tuple[type[Exception], ...]
    why: str

    def task_args(self) -> dict[str, Any]:
        """The same as arguments of a task."""
        return {
            "retries": self.tries - 1,
            "retry_delay": self.delay,
            "retry_exponential_backoff": self.backoff,
            "max_retry_delay": self.max_delay,
            "execution_timeout": self.time_limit,
            "retry_policy": ExceptionRetryPolicy(
                rules=[
                    RetryRule(
                        exception=list(self.never),
                        action=RetryAction.FAIL,
                        reason="asking again gives the same answer",
                    )
                ]
            ),
        }


POLICIES = {
    "await_ingest": StagePolicy(
        tries=4,
        delay=timedelta(seconds=2),
        backoff=2,
        max_delay=timedelta(seconds=10),
        time_limit=timedelta(minutes=2),
        never=(PermanentError,),
        why="Kafka that is away for some seconds should not cost a window. That the sink is "
        "behind is no error: the window is computed unsettled, and healed.",
    ),
    "find": StagePolicy(
        tries=5,
        delay=timedelta(seconds=5),
        backoff=2,
        max_delay=timedelta(minutes=1),
        time_limit=timedelta(minutes=5),
        never=(PermanentError,),
        why="InfluxDB may be restarting. What is not found now is found an hour later.",
    ),
    "downsample": StagePolicy(
        tries=6,
        delay=timedelta(seconds=3),
        backoff=2,
        max_delay=timedelta(seconds=30),
        time_limit=timedelta(minutes=5),
        never=(PermanentError,),
        why="InfluxDB may be restarting, for which a minute and a half is enough. A wrong token "
        "or a mistake in Flux is not mended by waiting.",
    ),
    "evaluate_alarms": StagePolicy(
        tries=6,
        delay=timedelta(seconds=3),
        backoff=2,
        max_delay=timedelta(seconds=30),
        time_limit=timedelta(minutes=5),
        never=(PermanentError,),
        why="As for downsample: it is the same server.",
    ),
    "republish": StagePolicy(
        tries=8,
        delay=timedelta(seconds=2),
        backoff=2,
        max_delay=timedelta(seconds=30),
        time_limit=timedelta(minutes=10),
        never=(PermanentError,),
        why="Two servers may be restarting, and another publisher may have taken over. Trying "
        "again never publishes anything twice.",
    ),
    "check_quality": StagePolicy(
        tries=4,
        delay=timedelta(seconds=10),
        backoff=2,
        max_delay=timedelta(minutes=1),
        time_limit=timedelta(minutes=5),
        never=(PermanentError, QualityError),
        why="A server may be restarting. Data do not improve by asking again, so a failed check "
        "is not repeated.",
    ),
    "cleanup": StagePolicy(
        tries=3,
        delay=timedelta(minutes=5),
        backoff=1,
        max_delay=timedelta(minutes=5),
        time_limit=timedelta(minutes=30),
        never=(PermanentError,),
        why="Nobody waits for it, and the next day does what was left.",
    ),
}
