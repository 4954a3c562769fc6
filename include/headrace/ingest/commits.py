"""The sink's commits: sent without waiting, and sent again when Kafka did not take them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.storage.kafka import error_of

__all__ = ["Commits"]

_log = structlog.get_logger(__name__)

#: While the group is being rebalanced commits fail; it takes about so long.
_AGAIN_SECONDS = 0.5


class Commits:
    """Up to where readings are written, and whether Kafka knows.

    A commit that failed is made up for by the next one, unless no more readings come: so
    it is sent again by itself.

    Parameters
    ----------
    topic
        The topic that is read.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._written: dict[int, int] = {}
        self._confirmed: dict[int, int] = {}
        self._again_at: float | None = None

    def written(self, offsets: Mapping[int, int]) -> None:
        """Note, by partition, the offset before which everything is written."""
        self._written.update(offsets)

    def drop(self, partitions: Iterable[int]) -> None:
        """Never commit for partitions that are no longer ours."""
        for partition in partitions:
            self._written.pop(partition, None)
            self._confirmed.pop(partition, None)

    def send_if_failed(self, consumer: Consumer) -> None:
        """Send again what Kafka did not take some time ago."""
        if self._again_at is not None and time.monotonic() >= self._again_at:
            self.send(consumer)

    def send(self, consumer: Consumer, *, wait: bool = False) -> None:
        """Commit what is written. Without waiting, the outcome comes to `report`."""
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
        """Take the outcome of a commit. Runs inside the consumer's ``poll``."""
        for position in positions:
            error = error or position.error
            if error is None:
                self._confirmed[position.partition] = position.offset
        if error is not None:
            if self._again_at is None:
                # The readings are written; whoever reads them again writes the same points.
                _log.info("a commit failed, trying again", problem=str(error_of(error)))
            self._again_at = time.monotonic() + _AGAIN_SECONDS
