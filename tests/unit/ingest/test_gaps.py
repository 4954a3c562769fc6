"""Records that Kafka deleted before the sink read them are noticed."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.errors import TransientError
from headrace.ingest.gaps import GapDetector


class ShortenedTopic:
    """A consumer of a topic whose first offset has moved without notice."""

    def __init__(self, committed: int, first: int) -> None:
        self.commit, self.first = committed, first
        self.asked = 0

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout
        return [TopicPartition(item.topic, item.partition, self.commit) for item in places]

    def get_watermark_offsets(
        self, place: TopicPartition, timeout: float, *, cached: bool
    ) -> tuple[int, int]:
        assert timeout
        assert not cached
        assert place.partition == 2
        self.asked += 1
        return self.first, 10_000


class SilentCluster:
    """A consumer whose cluster does not answer."""

    def committed(self, *_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def begun(topic: ShortenedTopic) -> GapDetector:
    gaps = GapDetector("raw")
    gaps.assigned([2])
    assert not gaps.ready
    gaps.learn(cast("Consumer", topic))
    assert gaps.ready
    return gaps


def found(
    gaps: GapDetector, topic: ShortenedTopic, offset: int, stop: int
) -> tuple[int, int] | None:
    lost = gaps.advance(cast("Consumer", topic), 2, offset, stop)
    return None if lost is None else (lost.start, lost.stop)


def test_records_deleted_before_the_sink_started_are_found() -> None:
    topic = ShortenedTopic(committed=100, first=150)
    gaps = begun(topic)
    assert found(gaps, topic, 150, 160) == (100, 150)
    assert found(gaps, topic, 160, 170) is None
    assert topic.asked == 1


def test_records_deleted_while_the_sink_waited_are_found() -> None:
    topic = ShortenedTopic(committed=100, first=0)
    gaps = begun(topic)
    assert found(gaps, topic, 100, 200) is None
    topic.first = 500
    assert found(gaps, topic, 500, 500) == (200, 500)


def test_transaction_markers_are_not_losses() -> None:
    topic = ShortenedTopic(committed=100, first=40)
    gaps = begun(topic)
    assert found(gaps, topic, 102, 110) is None
    assert found(gaps, topic, 111, 111) is None


def test_a_marker_beside_deleted_records_is_not_counted() -> None:
    topic = ShortenedTopic(committed=100, first=150)
    gaps = begun(topic)
    assert found(gaps, topic, 152, 160) == (100, 150)


def test_without_a_commit_all_earlier_records_may_be_lost() -> None:
    topic = ShortenedTopic(committed=-1001, first=30)
    gaps = begun(topic)
    lost = gaps.advance(cast("Consumer", topic), 2, 30, 31)
    assert lost is not None
    assert (lost.start, lost.stop) == (0, 30)
    assert "no commit" in lost.detail


def test_a_new_topic_has_lost_nothing() -> None:
    topic = ShortenedTopic(committed=-1001, first=0)
    gaps = begun(topic)
    assert found(gaps, topic, 0, 5) is None
    assert topic.asked == 0


def test_a_recreated_topic_is_reported() -> None:
    topic = ShortenedTopic(committed=100, first=0)
    gaps = begun(topic)
    lost = gaps.advance(cast("Consumer", topic), 2, 0, 7)
    assert lost is not None
    assert "created again" in lost.detail
    assert found(gaps, topic, 7, 9) is None


def test_partitions_of_another_sink_are_dropped() -> None:
    topic = ShortenedTopic(committed=100, first=900)
    gaps = begun(topic)
    gaps.drop([2])
    assert found(gaps, topic, 900, 901) is None


def test_nothing_is_assumed_while_kafka_does_not_answer() -> None:
    gaps = GapDetector("raw")
    gaps.assigned([2])
    with pytest.raises(TransientError):
        gaps.learn(cast("Consumer", SilentCluster()))
    assert not gaps.ready
