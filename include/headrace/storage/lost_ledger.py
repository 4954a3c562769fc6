"""Stores the newest loss of each partition, so that one request can read it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import msgspec
from confluent_kafka import Consumer, TopicPartition

from headrace.models.lost import LostRecords
from headrace.profile import Profile
from headrace.storage.kafka import Kafka, kafka_errors

__all__ = ["LostLedger", "recorded_losses", "unreported_losses"]

_CALL_SECONDS = 5.0
#: Kafka stores up to 4,096 bytes with a commit.
_DETAIL_CHARACTERS = 500
_NOT_RUNNING = "Kafka deleted the records, and the sink is not running"


def _group(profile: Profile) -> str:
    return f"headrace-lost-{profile.name}"


class LostLedger:
    """Stores losses that the sink reports, as commits of a consumer group without members.

    The dead-letter topic has a record for every loss but can be long. The commits have the
    newest loss of each partition, so ``headrace status`` needs only one request.

    Parameters
    ----------
    kafka, profile
        Location of the commits.
    """

    def __init__(self, kafka: Kafka, profile: Profile) -> None:
        self._kafka = kafka
        self._group = _group(profile)
        self._consumer: Consumer | None = None

    def save(self, lost: LostRecords) -> None:
        """Store a loss.

        Raises
        ------
        TransientError
            If Kafka does not accept the commit.
        """
        if self._consumer is None:
            # Rarely needed, so it is created on first use.
            self._consumer = self._kafka.consumer(self._group)
        kept = replace(
            lost, detail=lost.detail[:_DETAIL_CHARACTERS], recorded_ms=time.time_ns() // 1_000_000
        )
        place = TopicPartition(
            lost.topic, lost.partition, lost.stop, metadata=msgspec.json.encode(kept).decode()
        )
        with kafka_errors(f"Read on group {self._group}"):
            self._consumer.commit(offsets=[place], asynchronous=False)

    def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            self._consumer.close()


def recorded_losses(kafka: Kafka, profile: Profile, partitions: list[int]) -> list[LostRecords]:
    """Read the newest loss of each partition of the raw topic that had one.

    Raises
    ------
    TransientError
        If Kafka is unavailable.
    """
    consumer = kafka.consumer(_group(profile))
    try:
        asked = [TopicPartition(profile.topics.raw, partition) for partition in partitions]
        with kafka_errors(f"Describe on group {_group(profile)}"):
            found = consumer.committed(asked, timeout=_CALL_SECONDS)
    finally:
        consumer.close()
    losses = []
    for item in found:
        try:
            losses.append(msgspec.json.decode(item.metadata or b"", type=LostRecords))
        except msgspec.MsgspecError:
            # No commit, or one of another program.
            continue
    return losses


def unreported_losses(
    topic: str, first: Mapping[int, int], committed: Mapping[int, int]
) -> list[LostRecords]:
    """Return the records that Kafka deleted after the commits of a stopped sink.

    The sink reports the same when it starts.

    Parameters
    ----------
    topic
        The raw topic.
    first
        First offset of every partition.
    committed
        Committed offsets of the sink by partition.
    """
    now_ms = time.time_ns() // 1_000_000
    return [
        LostRecords(topic, partition, committed.get(partition, 0), offset, _NOT_RUNNING, now_ms)
        for partition, offset in first.items()
        if committed.get(partition, 0) < offset
    ]
