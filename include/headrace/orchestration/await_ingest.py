"""Waiting until the sink has written what Kafka held when the window closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from headrace.errors import TransientError
from headrace.orchestration.connections import kafka_config, task_settings
from headrace.orchestration.ranges import run_range
from headrace.orchestration.spans import Span, span_of
from headrace.stages.ingest_progress import catches_up, caught_up, end_of_topic
from headrace.storage.kafka import Kafka

__all__ = ["AwaitIngest", "SinkCaughtUpTrigger"]

#: What the bridge took before the window's end is in Kafka so long after it.
_GRACE = timedelta(milliseconds=500)
_POLL_SECONDS = 0.5
#: So long a task waits itself. While readings come, the newest are always on their way through
#: the sink; to hand that over to the triggerer, and be started again, would take seconds.
_PATIENCE = timedelta(seconds=2)
_ENDS = "end_offsets"


class AwaitIngest(BaseOperator):
    """Waits for the sink, and says whether the windows are settled.

    The ends of Kafka's partitions are taken once, half a second after the last window's
    end, and kept across deferral and retries: what arrives later belongs to later
    windows, and would put the goal further off with every look.

    Returns
    -------
    dict
        ``start`` and ``stop`` of the run's windows, and ``settled``: whether the sink had
        written everything, `False` after the limit.
    """

    def execute(self, context: Any) -> Span:
        """Wait a little here, and for a sink that is behind in the triggerer."""
        settings, profile = task_settings()
        windows = run_range(context, profile)
        kafka = Kafka(kafka_config())
        wait = (windows.stop + _GRACE - datetime.now(UTC)).total_seconds()
        if wait > 0:
            time.sleep(min(wait, _GRACE.total_seconds()))
        store = context["task_state_store"]
        ends = store.get(_ENDS)
        if ends is None:
            taken = end_of_topic(kafka, profile.topics.raw)
            ends = {str(partition): offset for partition, offset in taken.items()}
            store.set(_ENDS, ends, retention=timedelta(days=2))
        goal = {int(partition): offset for partition, offset in ends.items()}
        if not catches_up(kafka, profile.topics.raw, profile.sink_group, goal, _PATIENCE):
            self.log.info("the sink is behind, waiting for it: %s", goal)
            deadline = datetime.now(UTC) + settings.settle_limit
            self.defer(
                trigger=SinkCaughtUpTrigger(
                    profile.topics.raw, profile.sink_group, ends, deadline.timestamp()
                ),
                method_name=self.resume.__name__,
            )
        return span_of(windows, settled=True)

    def resume(self, context: Any, event: Mapping[str, Any]) -> Span:
        """Go on after the wait."""
        _, profile = task_settings()
        settled = bool(event["settled"])
        if not settled:
            self.log.warning("gave up waiting for the sink: the windows are unsettled")
        return span_of(run_range(context, profile), settled=settled)


class SinkCaughtUpTrigger(BaseTrigger):
    """Fires when the sink has committed up to some offsets, or at the deadline.

    Parameters
    ----------
    topic, group
        The raw topic, and the sinks' consumer group.
    ends
        Offsets to reach, by partition.
    deadline
        When to give up, in seconds since the epoch.
    """

    def __init__(self, topic: str, group: str, ends: dict[str, int], deadline: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.topic = topic
        self.group = group
        self.ends = ends
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What the triggerer needs to make this trigger again."""
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
        """Ask again and again until it is so, or too late."""
        goal = {int(partition): offset for partition, offset in self.ends.items()}
        kafka = Kafka(await sync_to_async(kafka_config)())
        while True:
            try:
                settled = await asyncio.to_thread(caught_up, kafka, self.topic, self.group, goal)
            except TransientError as exc:
                # Kafka may come back before the deadline; if not, that is the answer.
                self.log.warning("can't ask Kafka how far the sink is: %s", exc)
                settled = False
            if settled or time.time() >= self.deadline:
                yield TriggerEvent({"settled": settled})
                return
            await asyncio.sleep(_POLL_SECONDS)
