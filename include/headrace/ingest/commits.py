"""The sink's commits, sent asynchronously and retried if they fail."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.storage.kafka import error_of

__all__ = ["Commits"]

_log = structlog.get_logger(__name__)

#: Commits fail during a rebalance, which takes about this long.
_AGAIN_SECONDS = 0.5


class Commits:
    """Tracks the written and the committed offset of each partition.

    The next commit replaces a failed one. A failed commit is also retried by itself, in case no
    more readings arrive.

    Parameters
    ----------
    topic
        The raw topic.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._written: dict[int, int] = {}
        self._confirmed: dict[int, int] = {}
        self._again_at: float | None = None

    def written(self, offsets: Mapping[int, int]) -> None:
        """Set the offsets, by partition, before which everything is written."""
        self._written.update(offsets)

    def drop(self, partitions: Iterable[int]) -> None:
        """Stop committing for partitions of another sink."""
        for partition in partitions:
            self._written.pop(partition, None)
            self._confirmed.pop(partition, None)

    def send_if_failed(self, consumer: Consumer) -> None:
        """Retry a commit that failed some time ago."""
        if self._again_at is not None and time.monotonic() >= self._again_at:
            self.send(consumer)

    def send(self, consumer: Consumer, *, wait: bool = False) -> None:
        """Commit the written offsets. Without `wait`, `report` receives the outcome."""
        self._again_at = None
        positions = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._written.items()
            if self._confirmed.get(partition) != offset
        ]
        if not positions:
            return
        try:
            if wait:
                self.report(None, consumer.commit(offsets=positions, asynchronous=False) or [])
            else:
                consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as exc:
            self.report(exc.args[0], [])

    def report(self, error: KafkaError | None, positions: list[TopicPartition]) -> None:
        """Receive the outcome of a commit. Runs inside the consumer's ``poll``."""
        for position in positions:
            error = error or position.error
            if error is None:
                self._confirmed[position.partition] = position.offset
        if error is not None:
            if self._again_at is None:
                # The readings are written. Processing them again would write the same points.
                _log.info("commit failed and is retried", problem=str(error_of(error)))
            self._again_at = time.monotonic() + _AGAIN_SECONDS
