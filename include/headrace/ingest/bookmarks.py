"""Bookmarks: offsets before which all of a bridge's messages are acknowledged."""

from __future__ import annotations

from confluent_kafka import TopicPartition

from headrace.ingest.inflight import Place
from headrace.ingest.redelivery import MEMORY
from headrace.storage.kafka import Kafka, kafka_errors
from headrace.storage.kafka_log import Offsets, end_offsets, newest

__all__ = ["Bookmarks"]

_CALL_SECONDS = 10.0


class Bookmarks:
    """Offsets, by partition, up to which a bridge's messages are acknowledged.

    They are stored in Kafka as the offsets of a consumer group without members. With them a
    bridge finds its newest messages even if other bridges have written many newer ones.

    Parameters
    ----------
    kafka
        The cluster.
    bridge
        Name of the bridge.
    """

    def __init__(self, kafka: Kafka, bridge: str) -> None:
        self._consumer = kafka.consumer(f"headrace-bookmarks-{bridge}")
        self._saved: dict[Place, int] = {}

    def save(self, acknowledged_to: dict[Place, int]) -> None:
        """Save changed offsets without waiting for Kafka, because an older bookmark works, too."""
        moved = [
            TopicPartition(topic, partition, offset)
            for (topic, partition), offset in acknowledged_to.items()
            if self._saved.get((topic, partition)) != offset
        ]
        if moved:
            self._consumer.commit(offsets=moved, asynchronous=True)
            self._saved = dict(acknowledged_to)
        self._consumer.poll(0)

    def start_of(self, topic: str) -> Offsets:
        """Return the offsets at which to start reading the bridge's newest `MEMORY` messages."""
        first, end = end_offsets(self._consumer, topic)
        asked = [TopicPartition(topic, partition) for partition in end]
        with kafka_errors():
            found = self._consumer.committed(asked, timeout=_CALL_SECONDS)
        start = newest(first, end, MEMORY)
        for item in found:
            if item.offset >= 0:
                start[item.partition] = min(start[item.partition], item.offset - MEMORY)
        return start

    def end_of(self, topic: str) -> Offsets:
        """Return one past the last offset of every partition of a topic."""
        return end_offsets(self._consumer, topic)[1]

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
