"""Retries of each stage: the defaults, which a profile can change."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from headrace.checks.durations import Lasting, duration_text
from headrace.checks.values import Number, Whole

__all__ = ["CLEANUP_RETRIES", "Retries", "StageRetries"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageRetries(_Model):
    """Retries of one stage.

    Attributes
    ----------
    tries
        Total number of tries.
    delay
        Wait before the second try.
    backoff
        Ratio of each wait to the one before.
    max_delay
        Longest wait.
    limit
        Time limit of one try.
    """

    tries: Annotated[int, Whole(1, 50, from_text=False)]
    delay: Annotated[timedelta, Lasting("1s", "1h")]
    backoff: Annotated[float, Number(1, 10)]
    max_delay: Annotated[timedelta, Lasting("1s", "1h")]
    limit: Annotated[timedelta, Lasting("10s", "6h")]

    @model_validator(mode="after")
    def _delay_is_the_shortest(self) -> Self:
        if self.delay > self.max_delay:
            msg = (
                f"delay ({duration_text(self.delay)}) must not be longer than max_delay "
                f"({duration_text(self.max_delay)})"
            )
            raise ValueError(msg)
        return self

    @property
    def longest_wait(self) -> timedelta:
        """Longest possible sum of the waits between all tries."""
        total, wait = timedelta(0), self.delay
        for _ in range(self.tries - 1):
            # With a backoff, Airflow lengthens each wait at random, up to a factor of two.
            total += min(2 * wait, self.max_delay) if self.backoff > 1 else wait
            wait = min(wait * self.backoff, self.max_delay)
        return total


class Retries(_Model):
    """Retries of each stage. A profile contains only changes; other values are the defaults."""

    await_ingest: StageRetries = StageRetries(
        tries=4,
        delay=timedelta(seconds=2),
        backoff=2,
        max_delay=timedelta(seconds=10),
        limit=timedelta(minutes=2),
    )
    find: StageRetries = StageRetries(
        tries=5,
        delay=timedelta(seconds=5),
        backoff=2,
        max_delay=timedelta(minutes=1),
        limit=timedelta(minutes=5),
    )
    downsample: StageRetries = StageRetries(
        tries=6,
        delay=timedelta(seconds=3),
        backoff=2,
        max_delay=timedelta(seconds=30),
        limit=timedelta(minutes=5),
    )
    evaluate_alarms: StageRetries = StageRetries(
        tries=6,
        delay=timedelta(seconds=3),
        backoff=2,
        max_delay=timedelta(seconds=30),
        limit=timedelta(minutes=5),
    )
    republish: StageRetries = StageRetries(
        tries=8,
        delay=timedelta(seconds=2),
        backoff=2,
        max_delay=timedelta(seconds=30),
        limit=timedelta(minutes=10),
    )
    check_quality: StageRetries = StageRetries(
        tries=4,
        delay=timedelta(seconds=10),
        backoff=2,
        max_delay=timedelta(minutes=1),
        limit=timedelta(minutes=5),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _rest_keeps_its_default(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        default = cls.model_fields[str(info.field_name)].default
        return {**dict(default), **value}


#: Retries of Airflow's clean-up, which is independent of profiles.
CLEANUP_RETRIES = StageRetries(
    tries=3,
    delay=timedelta(minutes=5),
    backoff=1,
    max_delay=timedelta(minutes=5),
    limit=timedelta(minutes=30),
)
