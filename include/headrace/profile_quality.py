"""Levels of the quality checks in a profile."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

from headrace.checks.durations import Lasting
from headrace.checks.values import Number, Whole

__all__ = ["Quality", "Thresholds"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Model):
    """Levels of one quality check."""

    warn: float | timedelta
    fail: float | timedelta


class _OrderedThresholds(Thresholds):
    low_is_bad: ClassVar[bool] = False

    @model_validator(mode="after")
    def _fail_is_worse(self) -> Self:
        low, high = (self.fail, self.warn) if self.low_is_bad else (self.warn, self.fail)
        # Both have the same type, which each subclass defines.
        if low > high:  # type: ignore[operator]
            more = "less" if self.low_is_bad else "more"
            msg = f"fail must be {more} than warn, or equal to it"
            raise ValueError(msg)
        return self


class ShareThresholds(_OrderedThresholds):
    """Levels of a share for which high values are bad."""

    warn: Annotated[float, Number(0, 1)]
    fail: Annotated[float, Number(0, 1)]


class LowShareThresholds(ShareThresholds):
    """Levels of a share for which low values are bad."""

    low_is_bad: ClassVar[bool] = True


class AgeThresholds(_OrderedThresholds):
    """Levels of an age."""

    warn: Annotated[timedelta, Lasting("0s", "366d")]
    fail: Annotated[timedelta, Lasting("0s", "366d")]


class CountThresholds(_OrderedThresholds):
    """Levels of a number."""

    warn: Annotated[int, Whole(0, 1_000_000_000, from_text=False)]
    fail: Annotated[int, Whole(0, 1_000_000_000, from_text=False)]


class Quality(_Model):
    """Levels of the quality checks."""

    completeness: LowShareThresholds
    readings: LowShareThresholds
    out_of_range: ShareThresholds
    freshness: AgeThresholds
    clock_drift: ShareThresholds
    dead_letters: ShareThresholds
    adds_up: CountThresholds
