"""Failed and unconfirmed commits are sent again."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace.ingest import commits as module
from headrace.ingest.commits import Commits
from tests.support.sink_world import TOPIC, Cluster

REBALANCING = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)


class SilentCluster(Cluster):
    """A cluster that accepts commits and never confirms them."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition]:
        self.sent += [item.offset for item in offsets]
        return [] if asynchronous else offsets


def commits_of(cluster: Cluster) -> tuple[Commits, Consumer]:
    commits = Commits(TOPIC)
    cluster.report = commits.report
    return commits, cast("Consumer", cast("Any", cluster))


def test_only_changed_offsets_are_committed() -> None:
    cluster = SilentCluster()
    commits, consumer = commits_of(cluster)
    commits.written({0: 5})
    commits.send(consumer, wait=True)
    commits.send(consumer, wait=True)
    assert cluster.sent == [5]
    commits.written({0: 9})
    commits.send(consumer, wait=True)
    assert cluster.sent == [5, 9]


def test_unconfirmed_commits_are_sent_again() -> None:
    cluster = SilentCluster()
    commits, consumer = commits_of(cluster)
    commits.written({0: 5})
    commits.send(consumer)
    commits.send(consumer)
    assert cluster.sent == [5, 5]


def test_a_failed_commit_is_retried_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    commits, consumer = commits_of(cluster)
    cluster.commit_error = REBALANCING
    commits.written({0: 5})
    commits.send(consumer)
    cluster.commit_error = None
    commits.send_if_failed(consumer)
    assert cluster.committed_offsets == {}
    later = module.time.monotonic() + 1
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    commits.send_if_failed(consumer)
    assert cluster.committed_offsets == {0: 5}


def test_a_failed_partition_is_not_confirmed() -> None:
    cluster = SilentCluster()
    commits, consumer = commits_of(cluster)
    commits.written({0: 5, 1: 7})

    class Answered:
        def __init__(self, partition: int, offset: int, error: KafkaError | None) -> None:
            self.partition, self.offset, self.error = partition, offset, error

    commits.report(
        None, [cast("Any", Answered(0, 5, None)), cast("Any", Answered(1, 7, REBALANCING))]
    )
    commits.send(consumer)
    assert cluster.sent == [7]


def test_partitions_of_another_sink_are_not_committed() -> None:
    cluster = SilentCluster()
    commits, consumer = commits_of(cluster)
    commits.written({0: 5, 1: 7})
    commits.drop([0])
    commits.send(consumer)
    assert cluster.sent == [7]
