"""How often, how soon and after which errors each stage is retried."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from headrace.errors import PermanentError, QualityError

__all__ = ["POLICIES", "StagePolicy"]


@dataclass(frozen=True)
class StagePolicy:
    """How a stage is retried.

    Parameters
    ----------
    tries
        Number of tries in all.
    delay
        Wait before the second try.
    backoff
        Factor by which each further wait is longer.
    max_delay
        Longest wait.
    time_limit
        Time limit of one try.
    never
        Errors after which there is no retry.
    why
        Reason for the policy.
    """

    tries: int
    delay: timedelta
    backoff: float
    max_delay: timedelta
    time_limit: timedelta
    never: tuple[type[Exception], ...]
    why: str

    def task_args(self) -> dict[str, Any]:
        """The policy as arguments of a task."""
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
                        reason="a retry would fail in the same way",
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
        why="A short outage of Kafka must not cost a window. A sink that is behind is no error: "
        "the window is computed unsettled, and healed later.",
    ),
    "find": StagePolicy(
        tries=5,
        delay=timedelta(seconds=5),
        backoff=2,
        max_delay=timedelta(minutes=1),
        time_limit=timedelta(minutes=5),
        never=(PermanentError,),
        why="InfluxDB may be restarting. The run an hour later finds what this run did not.",
    ),
    "downsample": StagePolicy(
        tries=6,
        delay=timedelta(seconds=3),
        backoff=2,
        max_delay=timedelta(seconds=30),
        time_limit=timedelta(minutes=5),
        never=(PermanentError,),
        why="InfluxDB may be restarting, which takes less than a minute and a half. Waiting does "
        "not correct a wrong token or a mistake in a Flux file.",
    ),
    "evaluate_alarms": StagePolicy(
        tries=6,
        delay=timedelta(seconds=3),
        backoff=2,
        max_delay=timedelta(seconds=30),
        time_limit=timedelta(minutes=5),
        never=(PermanentError,),
        why="As for downsample: the server is the same.",
    ),
    "republish": StagePolicy(
        tries=8,
        delay=timedelta(seconds=2),
        backoff=2,
        max_delay=timedelta(seconds=30),
        time_limit=timedelta(minutes=10),
        never=(PermanentError,),
        why="Two servers may be restarting, or another publisher may have taken over. A retry "
        "never publishes anything twice.",
    ),
    "check_quality": StagePolicy(
        tries=4,
        delay=timedelta(seconds=10),
        backoff=2,
        max_delay=timedelta(minutes=1),
        time_limit=timedelta(minutes=5),
        never=(PermanentError, QualityError),
        why="A server may be restarting. A failed check is not repeated: its data do not change.",
    ),
    "cleanup": StagePolicy(
        tries=3,
        delay=timedelta(minutes=5),
        backoff=1,
        max_delay=timedelta(minutes=5),
        time_limit=timedelta(minutes=30),
        never=(PermanentError,),
        why="No other task waits for it, and the next day's run deletes what is left.",
    ),
}
