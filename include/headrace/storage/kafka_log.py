"""Reads a Kafka topic from an offset to its end, without a consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.errors import MissingResourceError, ServerTimeoutError, TransientError
from headrace.storage.kafka import Kafka, Record, error_of, kafka_errors

__all__ = [
    "READER_GROUP",
    "Offsets",
    "end_offsets",
    "held_records",
    "newest",
    "offsets_at",
    "partitions_of",
    "read_topic",
    "reader",
]

#: Offsets by partition number.
Offsets = dict[int, int]

#: Group of consumers that read by offsets. They never join it, but librdkafka looks for it.
READER_GROUP = "headrace-reader"
_CALL_SECONDS = 10.0
_BATCH = 5000
_POLL_SECONDS = 0.2
#: Kafka counts as hanging if it sends nothing for this long although there is more to read.
_SILENCE_SECONDS = 30.0


@contextmanager
def reader(kafka: Kafka, **overrides: Any) -> Iterator[Consumer]:
    """Open a consumer without a group; close it after the block.

    Parameters
    ----------
    kafka
        The cluster.
    overrides
        As for `headrace.storage.kafka.Kafka.consumer`.
    """
    # The library requires the name of a group. This one has no members.
    consumer = kafka.consumer(READER_GROUP, **overrides)
    try:
        yield consumer
    finally:
        consumer.close()


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Return the partition numbers of a topic.

    Raises
    ------
    MissingResourceError
        If there is no such topic.
    """
    acl = f"Describe on topic {topic}"
    with kafka_errors(acl):
        metadata = consumer.list_topics(topic, timeout=_CALL_SECONDS).topics[topic]
    if metadata.error is not None:
        raise error_of(metadata.error, acl)
    if not metadata.partitions:
        msg = f"topic {topic} has no partitions. `headrace provision` creates topics"
        raise MissingResourceError(msg)
    return sorted(metadata.partitions)


def end_offsets(consumer: Consumer, topic: str) -> tuple[Offsets, Offsets]:
    """Return the first offset, and one past the last, of every partition of a topic."""
    first, end = {}, {}
    for partition in partitions_of(consumer, topic):
        with kafka_errors():
            first[partition], end[partition] = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=_CALL_SECONDS
            )
    return first, end


def offsets_at(consumer: Consumer, topic: str, moment: datetime) -> Offsets:
    """Return the offset of the first record of each partition with this timestamp or a later one.

    The timestamp is the time of arrival on the topics of raw readings and dead letters, and
    the publisher's stamp on those of rows and alarms. It is never the event time. A partition
    without such a record has its end offset.
    """
    _, end = end_offsets(consumer, topic)
    return _offsets_at(consumer, topic, moment, end)


def _offsets_at(consumer: Consumer, topic: str, moment: datetime, end: Offsets) -> Offsets:
    stamp = int(moment.timestamp() * 1000)
    asked = [TopicPartition(topic, partition, stamp) for partition in end]
    with kafka_errors():
        found = consumer.offsets_for_times(asked, timeout=_CALL_SECONDS)
    return {
        item.partition: item.offset if item.offset >= 0 else end[item.partition] for item in found
    }


def read_topic(
    kafka: Kafka,
    topic: str,
    start: Mapping[int, int] | None = None,
    stop: Mapping[int, int] | None = None,
    *,
    since: datetime | None = None,
    wanted: Callable[[bytes], bool] | None = None,
    buffer_kilobytes: int = 16 * 1024,
) -> Iterator[Record]:
    """Read every committed record between offsets.

    Parameters
    ----------
    kafka
        The cluster.
    topic
        The topic.
    start
        First offset of each partition; its first record if not given.
    stop
        End offset of each partition, exclusive; its current end if not given.
    since
        Instead of `start`: start with the first record with this timestamp or a later one.
    wanted
        Returns whether a record with this value is wanted; by default, all are. Other parts of
        unwanted records are not read.
    buffer_kilobytes
        Size of the fetch buffer.

    Yields
    ------
    Record
        The records, in order within each partition.

    Raises
    ------
    MissingResourceError
        If there is no such topic.
    TransientError
        If Kafka is unavailable or stops sending.
    """
    with reader(
        kafka,
        queued_max_messages_kbytes=buffer_kilobytes,
        # Fetch as soon as there is room; librdkafka's default is a second.
        fetch_queue_backoff_ms=10,
        fetch_wait_max_ms=10,
    ) as consumer:
        first, end = end_offsets(consumer, topic)
        if since is not None:
            start = _offsets_at(consumer, topic, since, end)
        unread = {}
        for partition in end:
            if stop is not None:
                end[partition] = min(end[partition], stop.get(partition, 0))
            begin = first[partition] if start is None else start.get(partition, end[partition])
            begin = max(begin, first[partition])
            if begin < end[partition]:
                unread[partition] = begin
        if unread:
            consumer.assign(
                [TopicPartition(topic, part, offset) for part, offset in unread.items()]
            )
            yield from _read_to(consumer, end, set(unread), wanted)


def _read_to(
    consumer: Consumer, end: Offsets, unread: set[int], wanted: Callable[[bytes], bool] | None
) -> Iterator[Record]:
    last_sent = time.monotonic()
    while unread:
        messages = _fetch(consumer)
        if any(map(Message.error, messages)):
            unread -= _ended(messages)
            messages = [message for message in messages if message.error() is None]
        for message in messages:
            # Check the value first, because most records are unwanted.
            if (wanted is None or wanted(message.value() or b"")) and (
                (message.offset() or 0) < end[message.partition() or 0]
            ):
                yield Record.of(message)
        # The last record of each partition shows its position.
        for message in {message.partition(): message for message in messages}.values():
            partition = message.partition() or 0
            if (message.offset() or 0) >= end[partition] - 1:
                unread.discard(partition)
        # The caller can take any time between two records.
        if messages:
            last_sent = time.monotonic()
        elif time.monotonic() - last_sent > _SILENCE_SECONDS:
            msg = f"Kafka has sent nothing for {_SILENCE_SECONDS:.0f} s although there is more"
            raise ServerTimeoutError(msg)


def _ended(messages: Iterable[Message]) -> set[int]:
    """Return the partitions that have ended; raise permanent errors."""
    ended = set()
    for message in messages:
        error = message.error()
        if error is None:
            continue
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            ended.add(message.partition() or 0)
        else:
            of_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
            reads = f"Read on topic {message.topic()}"
            acl = f"Describe on group {READER_GROUP}" if of_group else reads
            problem = error_of(error, acl)
            if not isinstance(problem, TransientError):
                raise problem
    return ended


def _fetch(consumer: Consumer) -> list[Message]:
    """Wait for a record; return it with all that have arrived.

    A request for many records would wait until there are as many, or for the timeout.
    """
    with kafka_errors():
        first = consumer.poll(_POLL_SECONDS)
        return [] if first is None else [first, *consumer.consume(_BATCH, 0)]


def held_records(kafka: Kafka, topic: str) -> int:
    """Return the number of offsets in a topic, which is at least its number of records."""
    with reader(kafka) as consumer:
        first, end = end_offsets(consumer, topic)
    return sum(stop - first[partition] for partition, stop in end.items())


def newest(first: Offsets, end: Offsets, records: int) -> Offsets:
    """Return the offsets at which this number of newest records begins in each partition."""
    return {part: max(first[part], stop - records) for part, stop in end.items()}
