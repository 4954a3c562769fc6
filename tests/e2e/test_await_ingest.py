"""A window waits for the sink until a time limit, even if the triggerer hangs."""

from __future__ import annotations

import signal
import time

from confluent_kafka import TopicPartition

from headrace.models.device_time import epoch_ns
from headrace.models.window import rfc3339
from headrace.stages.ingest_progress import end_of_topic
from tests.support.airflow import AirflowStack
from tests.support.ranges import hours_ago, windows

#: Seconds that Airflow may take to start the tasks on a busy machine, beyond the time limit.
OVERHEAD_SECONDS = 60


def test_waiting_for_a_stopped_sink_ends_at_the_time_limit(
    airflow: AirflowStack,
) -> None:
    installation = airflow.installation
    profile, kafka = installation.profile, installation.kafka
    range_ = windows(hours_ago(8), 1)
    installation.store(("waiting", range_.start, {}))
    producer = kafka.producer()
    producer.produce(
        profile.topics.raw, b"{}", b"waiting", headers={"time_ns": str(epoch_ns(range_.start))}
    )
    assert producer.flush(10) == 0
    triggerer = airflow.processes["triggerer"]
    limit = installation.settings.settle_limit.total_seconds()
    triggerer.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        run = airflow.trigger("reconcile", start=rfc3339(range_.start), stop=rfc3339(range_.stop))
        airflow.wait_for_task("reconcile", run, "await_ingest", ("deferred",))
        done = airflow.wait_for_run("reconcile", run, limit + OVERHEAD_SECONDS)
        taken = time.monotonic() - begun
    finally:
        triggerer.signal(signal.SIGCONT)
        _commit_everything(airflow)
    assert done["state"] == "success"
    assert taken >= limit
    (task,) = [t for t in airflow.tasks("reconcile", run) if t["task_id"] == "await_ingest"]
    # Reaching the time limit is not a failure: no retry and no mail.
    assert task["try_number"] == 1
    assert airflow.mailbox.subjects("await_ingest") == []
    with installation.pipeline() as pipeline:
        marker = pipeline.store.markers(range_)[range_.start]
    assert not marker.settled
    assert marker.rows == 1


def _commit_everything(airflow: AirflowStack) -> None:
    """Commit the unread records, so that later windows do not wait for them."""
    profile, kafka = airflow.installation.profile, airflow.installation.kafka
    ends = end_of_topic(kafka, profile.topics.raw)
    consumer = kafka.consumer(profile.sink_group)
    try:
        offsets = [TopicPartition(profile.topics.raw, part, end) for part, end in ends.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
    finally:
        consumer.close()
