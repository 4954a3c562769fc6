"""Detects records that Kafka deleted before the sink read them.

Kafka's retention does not wait for consumers. If its next record is deleted, a consumer
continues at the first remaining record without an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import Consumer, TopicPartition

from headrace.models.lost import LostRecords
from headrace.storage.kafka import kafka_errors

__all__ = ["GapDetector"]

_CALL_SECONDS = 5.0


class GapDetector:
    """Compares the offset of each fetched record with the expected one.

    Offsets also jump at transaction markers. So a jump is a loss only up to Kafka's current
    first offset.

    Parameters
    ----------
    topic
        Topic of the records.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._unknown: set[int] = set()
        self._expected: dict[int, int] = {}
        self._never_committed: set[int] = set()

    @property
    def ready(self) -> bool:
        """Whether the expected offset of each partition is known."""
        return not self._unknown

    def assigned(self, partitions: Iterable[int]) -> None:
        """Add partitions. `learn` must run before their first record is fetched."""
        self._unknown.update(partitions)

    def drop(self, partitions: Iterable[int]) -> None:
        """Remove partitions that now belong to another sink."""
        for partition in partitions:
            self._unknown.discard(partition)
            self._never_committed.discard(partition)
            self._expected.pop(partition, None)

    def learn(self, consumer: Consumer) -> None:
        """Ask Kafka for the group's committed offsets.

        Raises
        ------
        TransientError
            If Kafka does not answer.
        """
        asked = [TopicPartition(self._topic, partition) for partition in sorted(self._unknown)]
        with kafka_errors():
            found = consumer.committed(asked, timeout=_CALL_SECONDS)
        for item in found:
            if item.error is not None:
                continue
            self._expected[item.partition] = max(0, item.offset)
            if item.offset < 0:
                self._never_committed.add(item.partition)
            self._unknown.discard(item.partition)

    def advance(
        self, consumer: Consumer, partition: int, offset: int, stop: int
    ) -> LostRecords | None:
        """Record that the offsets from `offset` to before `stop` were fetched.

        Returns
        -------
        LostRecords or None
            The deleted records before them, if any.

        Raises
        ------
        TransientError
            If there is a jump and Kafka does not report its first offset.
        """
        expected = self._expected.get(partition)
        self._expected[partition] = stop
        if expected is None or expected == offset:
            return None
        never_committed = partition in self._never_committed
        self._never_committed.discard(partition)
        if offset < expected:
            detail = (
                f"the topic was truncated or created again: offset {offset} follows offset "
                f"{expected - 1}. Records from offset {expected} on may be lost"
            )
            return LostRecords(self._topic, partition, expected, expected + 1, detail)
        with kafka_errors():
            first, _ = consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=_CALL_SECONDS, cached=False
            )
        stop = min(first, offset)
        if stop <= expected:
            return None
        detail = "Kafka deleted the records before the sink wrote them"
        if never_committed:
            detail = (
                "Kafka deleted the records, and has no commit of the sink: it is unknown whether "
                "they were written"
            )
        return LostRecords(self._topic, partition, expected, stop, detail)
