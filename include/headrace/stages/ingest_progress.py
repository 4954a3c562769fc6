"""Progress of the sinks: committed offsets and lag."""

from __future__ import annotations

import operator
from datetime import timedelta

from confluent_kafka import TopicPartition
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from headrace.storage.kafka import Kafka, kafka_errors
from headrace.storage.kafka_log import Offsets, end_offsets, reader

__all__ = ["catches_up", "caught_up", "committed_offsets", "end_of_topic", "sink_lag"]

_CALL_SECONDS = 5.0
_LOOK_SECONDS = 0.1


def end_of_topic(kafka: Kafka, topic: str) -> Offsets:
    """Return one past the last offset of every partition."""
    with reader(kafka) as consumer:
        return end_offsets(consumer, topic)[1]


def committed_offsets(kafka: Kafka, topic: str, group: str, partitions: list[int]) -> Offsets:
    """Return the committed offsets of a consumer group, without partitions that have none."""
    # A consumer can read the commits of any group without joining it.
    consumer = kafka.consumer(group)
    try:
        asked = [TopicPartition(topic, partition) for partition in partitions]
        with kafka_errors(f"Describe on group {group}"):
            found = consumer.committed(asked, timeout=_CALL_SECONDS)
    finally:
        consumer.close()
    return {item.partition: item.offset for item in found if item.offset >= 0}


def caught_up(kafka: Kafka, topic: str, group: str, ends: Offsets) -> bool:
    """Return whether a group has committed up to these offsets in every partition."""
    committed = committed_offsets(kafka, topic, group, sorted(ends))
    return all(committed.get(partition, 0) >= end for partition, end in ends.items())


def catches_up(kafka: Kafka, topic: str, group: str, ends: Offsets, within: timedelta) -> bool:
    """Wait until a group has committed up to these offsets; return `False` after the limit."""
    look = Retrying(
        retry=retry_if_result(operator.not_),
        wait=wait_fixed(_LOOK_SECONDS),
        stop=stop_after_delay(within),
        retry_error_callback=lambda _: False,
    )
    return look(caught_up, kafka, topic, group, ends)


def sink_lag(kafka: Kafka, topic: str, group: str) -> int:
    """Return how many records of a topic a group has not committed yet."""
    with reader(kafka) as consumer:
        first, ends = end_offsets(consumer, topic)
    committed = committed_offsets(kafka, topic, group, sorted(ends))
    return sum(max(0, end - committed.get(part, first[part])) for part, end in ends.items())
