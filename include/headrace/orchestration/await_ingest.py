"""Waits until the sink has written all records that Kafka had when the window closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferralTimeout
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from headrace.errors import TransientError
from headrace.models.window import WindowRange
from headrace.orchestration.connections import kafka_config, task_settings
from headrace.orchestration.ranges import run_range
from headrace.orchestration.spans import Span, span_of
from headrace.stages.ingest_progress import catches_up, caught_up, end_of_topic
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import Offsets

__all__ = ["AwaitIngest", "SinkCaughtUpTrigger"]

_log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.5
#: The task waits this long before it defers. Under load the newest readings are always in the
#: sink, and a deferral takes seconds.
_PATIENCE = timedelta(seconds=2)
#: Airflow's scheduler resumes a deferred task this long after the deadline if no triggerer
#: has.
_SLACK = timedelta(seconds=5)
_RETENTION = timedelta(days=2)
_ENDS = "end_offsets"
_DEADLINE = "deadline"


class AwaitIngest(BaseOperator):
    """Waits for the sink and returns whether the windows are settled.

    The task reads the end offsets of all partitions once, `Profile.grace` after the last
    window's end, and keeps them across deferral and retries. Later records belong to later
    windows, and with new offsets at every try the wait would never end.

    The deadline is kept, too. Neither a retry nor a missing or hanging triggerer makes the wait
    longer than ``HEADRACE_SETTLE_LIMIT`` and a few seconds.

    Returns
    -------
    dict
        ``start`` and ``stop`` of the run's windows, and ``settled``: `True` if the sink had
        written everything before the deadline.
    """

    def execute(self, context: Any) -> Span:
        """Wait for a short time in the task, then in the triggerer."""
        settings, profile = task_settings()
        windows = run_range(context, profile)
        kafka = Kafka(kafka_config())
        wait = (windows.stop + profile.grace - datetime.now(UTC)).total_seconds()
        if wait > 0:
            time.sleep(min(wait, profile.grace.total_seconds()))
        store = context["task_state_store"]
        ends = store.get(_ENDS)
        if ends is None:
            taken = end_of_topic(kafka, profile.topics.raw)
            ends = {str(partition): offset for partition, offset in taken.items()}
            store.set(_ENDS, ends, retention=_RETENTION)
        deadline = store.get(_DEADLINE)
        if deadline is None:
            deadline = time.time() + settings.settle_limit.total_seconds()
            store.set(_DEADLINE, deadline, retention=_RETENTION)
        # A fast clock at the time of the first try must not make the wait longer.
        left = min(timedelta(seconds=deadline - time.time()), settings.settle_limit)
        patience = max(min(_PATIENCE, left), timedelta(0))
        goal = _offsets(ends)
        if not catches_up(kafka, profile.topics.raw, profile.sink_group, goal, patience):
            left -= patience
            if left <= timedelta(0):
                return self._span(windows, settled=False)
            _log.info("waiting for the sink", offsets=goal)
            until = time.time() + left.total_seconds()
            self.defer(
                trigger=SinkCaughtUpTrigger(profile.topics.raw, profile.sink_group, ends, until),
                method_name=self.resume.__name__,
                timeout=left + _SLACK,
            )
        return span_of(windows, settled=True)

    def resume(self, context: Any, event: Mapping[str, Any]) -> Span:
        """Continue after the wait."""
        _, profile = task_settings()
        return self._span(run_range(context, profile), settled=bool(event["settled"]))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any
    ) -> Any:
        """Continue after the wait or after the scheduler's time limit."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[no-untyped-call, unused-ignore]
        except TaskDeferralTimeout:
            _log.warning("triggerer did not answer within the time limit")
        _, profile = task_settings()
        goal = _offsets(context["task_state_store"].get(_ENDS))
        kafka = Kafka(kafka_config())
        settled = caught_up(kafka, profile.topics.raw, profile.sink_group, goal)
        return self._span(run_range(context, profile), settled=settled)

    def _span(self, windows: WindowRange, *, settled: bool) -> Span:
        if not settled:
            _log.warning("sink is behind at the time limit", unsettled=str(windows))
        return span_of(windows, settled=settled)


def _offsets(ends: Mapping[str, int]) -> Offsets:
    return {int(partition): offset for partition, offset in ends.items()}


class SinkCaughtUpTrigger(BaseTrigger):
    """Fires when the sink has committed up to the given offsets, or at the deadline.

    Parameters
    ----------
    topic, group
        The raw topic, and the sinks' consumer group.
    ends
        Offsets to reach, by partition.
    deadline
        End of the wait, in seconds since the epoch.
    """

    def __init__(self, topic: str, group: str, ends: dict[str, int], deadline: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.topic = topic
        self.group = group
        self.ends = ends
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer creates this trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "topic": self.topic,
                "group": self.group,
                "ends": self.ends,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask Kafka twice a second until the sink has caught up, or until the deadline."""
        goal = _offsets(self.ends)
        kafka = Kafka(await sync_to_async(kafka_config)())
        while True:
            try:
                settled = await asyncio.to_thread(caught_up, kafka, self.topic, self.group, goal)
            except TransientError as exc:
                # Kafka may recover before the deadline. If not, the windows are unsettled.
                _log.warning("progress of the sink is unknown", error=str(exc))
                settled = False
            if settled or time.time() >= self.deadline:
                yield TriggerEvent({"settled": settled})
                return
            await asyncio.sleep(_POLL_SECONDS)
