"""The wait for the sink ends in time: with and without a triggerer, and across retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from headrace.errors import ServerUnavailableError
from headrace.models.window import floor
from headrace.orchestration import await_ingest
from headrace.orchestration.await_ingest import AwaitIngest, SinkCaughtUpTrigger
from headrace.profile import load_profile
from tests.dags.conftest import PROJECT

LIMIT = timedelta(seconds=30)


class StoppedSink:
    """A sink that has committed up to an offset, and a topic that grows."""

    def __init__(self) -> None:
        self.committed = 5
        self.end = 10
        self.asked: list[int] = []
        self.unavailable = False

    def caught_up(self, kafka: object, topic: str, group: str, ends: dict[int, int]) -> bool:
        del kafka, topic, group
        if self.unavailable:
            msg = "Kafka is away"
            raise ServerUnavailableError(msg)
        self.asked.append(ends[0])
        return self.committed >= ends[0]

    def catches_up(
        self, kafka: object, topic: str, group: str, ends: dict[int, int], within: timedelta
    ) -> bool:
        assert timedelta(0) <= within <= timedelta(seconds=2)
        return self.caught_up(kafka, topic, group, ends)

    def end_of_topic(self, kafka: object, topic: str) -> dict[int, int]:
        del kafka, topic
        return {0: self.end}


class TaskStore(dict[str, Any]):
    """Airflow's state of a task, kept across its tries."""

    def set(self, key: str, value: Any, *, retention: timedelta) -> None:
        assert retention > timedelta(hours=1)
        self[key] = value


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> StoppedSink:
    sink = StoppedSink()
    profile = load_profile(PROJECT / "include/profiles/generators.yaml")
    settings = SimpleNamespace(settle_limit=LIMIT)
    monkeypatch.setattr(await_ingest, "task_settings", lambda: (settings, profile))
    monkeypatch.setattr(await_ingest, "kafka_config", lambda: {"bootstrap.servers": "nowhere"})
    for name in ("caught_up", "catches_up", "end_of_topic"):
        monkeypatch.setattr(await_ingest, name, getattr(sink, name))
    return sink


@pytest.fixture
def context() -> dict[str, Any]:
    stop = floor(datetime.now(UTC), timedelta(minutes=1))
    return {
        "data_interval_start": stop - timedelta(minutes=1),
        "data_interval_end": stop,
        "task_state_store": TaskStore(),
    }


@pytest.fixture
def task() -> AwaitIngest:
    return AwaitIngest(task_id="await_ingest")


def deferral(task: AwaitIngest, context: dict[str, Any]) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as info:
        task.execute(context)
    return info.value


def test_a_sink_that_has_caught_up_needs_no_deferral(
    sink: StoppedSink, task: AwaitIngest, context: dict[str, Any]
) -> None:
    sink.committed = 10
    assert task.execute(context)["settled"] is True


def test_the_scheduler_ends_a_wait_without_a_triggerer(
    sink: StoppedSink, task: AwaitIngest, context: dict[str, Any]
) -> None:
    deferred = deferral(task, context)
    assert isinstance(deferred.timeout, timedelta)
    assert LIMIT - timedelta(seconds=5) < deferred.timeout < LIMIT + timedelta(seconds=10)
    # The scheduler does this after the time limit.
    error = {"error": "Trigger timeout"}
    assert task.resume_execution("__fail__", error, context)["settled"] is False
    sink.committed = 10
    assert task.resume_execution("__fail__", error, context)["settled"] is True


def test_another_failure_of_the_trigger_is_an_error(
    sink: StoppedSink, task: AwaitIngest, context: dict[str, Any]
) -> None:
    assert sink.committed == 5
    deferral(task, context)
    with pytest.raises(Exception, match="Trigger failure") as info:
        task.resume_execution("__fail__", {"error": "Trigger failure"}, context)
    assert not isinstance(info.value, TaskDeferralTimeout)


def test_a_retry_keeps_the_offsets_and_the_deadline(
    sink: StoppedSink,
    task: AwaitIngest,
    context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = deferral(task, context)
    begun = time.time()
    sink.end = 1000
    monkeypatch.setattr(time, "time", lambda: begun + 20)
    second = deferral(task, context)
    assert isinstance(first.timeout, timedelta)
    assert isinstance(second.timeout, timedelta)
    assert second.timeout < first.timeout - timedelta(seconds=19)
    monkeypatch.setattr(time, "time", lambda: begun + 40)
    assert task.execute(context)["settled"] is False
    assert set(sink.asked) == {10}


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_jumps_does_not_make_the_wait_longer(
    sink: StoppedSink,
    task: AwaitIngest,
    context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    hours: int,
) -> None:
    assert sink.committed == 5
    deferral(task, context)
    jumped = time.time() + hours * 3600
    monkeypatch.setattr(time, "time", lambda: jumped)
    try:
        assert task.execute(context)["settled"] is False
    except TaskDeferred as deferred:
        assert isinstance(deferred.timeout, timedelta)
        assert deferred.timeout < LIMIT + timedelta(seconds=10)


def test_the_offsets_are_read_after_the_grace_period(
    sink: StoppedSink,
    task: AwaitIngest,
    context: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink.committed = 10
    profile = await_ingest.task_settings()[1].model_copy(update={"grace": timedelta(seconds=9)})
    settings = SimpleNamespace(settle_limit=LIMIT)
    monkeypatch.setattr(await_ingest, "task_settings", lambda: (settings, profile))
    stop = floor(datetime.now(UTC), timedelta(minutes=1)) + timedelta(minutes=1)
    context.update(data_interval_start=stop - timedelta(minutes=1), data_interval_end=stop)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    task.execute(context)
    # Never longer than the grace period, even if this machine's clock is slow.
    assert slept == [9.0]


@pytest.fixture
def answer() -> Callable[[float], bool]:
    """Return the event of the trigger for a number of seconds until its deadline."""

    def ask(seconds: float) -> bool:
        trigger = SinkCaughtUpTrigger("t", "g", {"0": 10}, time.time() + seconds)
        path, arguments = trigger.serialize()
        assert path == "headrace.orchestration.await_ingest.SinkCaughtUpTrigger"
        again = SinkCaughtUpTrigger(**arguments)

        async def first() -> bool:
            async for event in again.run():
                return bool(event.payload["settled"])  # type: ignore[attr-defined]
            raise AssertionError

        return asyncio.run(first())

    return ask


def test_the_trigger_fires_at_its_deadline(
    sink: StoppedSink, answer: Callable[[float], bool]
) -> None:
    assert answer(0) is False
    sink.unavailable = True
    assert answer(0.2) is False
    sink.unavailable = False
    sink.committed = 10
    assert answer(60) is True
