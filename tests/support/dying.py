"""A worker that dies while it republishes: ``python -m tests.support.dying STEP ...``.

It runs the unchanged stage with clients that kill the process with SIGKILL at one of
`STEPS`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from confluent_kafka import Producer

from headrace.models.window import WindowRange, parse_time
from headrace.profile import load_profile
from headrace.settings import load_settings
from headrace.stages.factory import make_pipeline
from headrace.stages.republish import republish
from headrace.storage.influx import Influx, influx_address
from headrace.storage.kafka import Kafka

__all__ = ["STEPS"]

#: In order of execution.
STEPS = (
    "before init_transactions 1",
    "after init_transactions 1",
    "after begin_transaction 1",
    "after produce 1",
    "before commit_transaction 1",
    "after commit_transaction 1",
    # The first write is the record of alarm changes,
    "before write 1",
    # the second one the markers.
    "before write 2",
    "after write 2",
)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Dying:
    """A client that kills the process at one call."""

    def __init__(self, client: Any, when: str, method: str, number: int) -> None:
        self._client = client
        self._when = when
        self._method = method
        self._before = number - 1

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._deadly(found) if name == self._method else found

    def _deadly(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._before:
                self._before -= 1
                return method(*args, **kwargs)
            if self._when == "after":
                method(*args, **kwargs)
            if isinstance(self._client, Producer) and self._method != "init_transactions":
                # Everything produced so far must be in Kafka before the kill.
                self._client.flush()
            return _die()

        return call


class _DyingKafka(Kafka):
    """Creates producers that kill the process."""

    def __init__(self, kafka: Kafka, *death: Any) -> None:
        super().__init__(kafka.config)
        object.__setattr__(self, "_death", death)

    def producer(self, **overrides: Any) -> Any:
        return _Dying(super().producer(**overrides), *self._death)  # type: ignore[attr-defined]


def main() -> None:
    step, environment, start, stop, run = sys.argv[1:]
    os.environ.update(json.loads(environment))
    settings = load_settings()
    profile = load_profile(settings.profile)
    when, method, number = step.split()
    death = when, method, int(number)
    with Influx(influx_address(settings, "airflow"), timeout=timedelta(seconds=60)) as influx:
        kafka = Kafka.from_settings(settings)
        if method == "write":
            pipeline = make_pipeline(settings, profile, cast("Any", _Dying(influx, *death)), kafka)
        else:
            pipeline = make_pipeline(settings, profile, influx, _DyingKafka(kafka, *death))
        windows = WindowRange(parse_time(start), parse_time(stop), profile.window)
        republish(windows, pipeline, run=run)


if __name__ == "__main__":
    main()
