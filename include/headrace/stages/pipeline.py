"""The common arguments of all stages: profile, stores, Kafka and clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headrace.profile import Profile
from headrace.stages.quality_store import QualityStore
from headrace.stages.window_store import WindowStore
from headrace.storage.kafka import Kafka

__all__ = ["Pipeline"]


def _system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Pipeline:
    """The profile, the stores, the Kafka client and the clock.

    Parameters
    ----------
    profile
        The kind of device.
    store
        Readings, rows and markers.
    quality
        Counts, and the results of the quality checks.
    kafka
        The cluster.
    raw_retention
        How long raw readings are kept.
    clock
        Returns the current time.
    """

    profile: Profile
    store: WindowStore
    quality: QualityStore
    kafka: Kafka
    raw_retention: timedelta
    clock: Callable[[], datetime] = _system_clock
