"""Reading a Kafka topic from some place to its end, without a consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.errors import MissingResourceError, ServerTimeoutError, TransientError
from headrace.storage.kafka import Kafka, Record, error_of, kafka_errors

__all__ = [
    "Offsets",
    "count_between",
    "count_records",
    "end_offsets",
    "held_records",
    "newest",
    "offsets_at",
    "partitions_of",
    "read_topic",
]

#: Partition number to offset.
Offsets = dict[int, int]

_CALL_SECONDS = 10.0
_BATCH = 5000
_POLL_SECONDS = 0.2
#: Kafka says nothing for so long although there is more to read: it hangs.
_SILENCE_SECONDS = 30.0


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Partition numbers of a topic.

    Raises
    ------
    MissingResourceError
        If there is no such topic.
    """
    with kafka_errors():
        metadata = consumer.list_topics(topic, timeout=_CALL_SECONDS).topics[topic]
    if metadata.error is not None:
        raise error_of(metadata.error)
    if not metadata.partitions:
        msg = f"topic {topic} has no partitions. `headrace provision` makes topics"
        raise MissingResourceError(msg)
    return sorted(metadata.partitions)


def end_offsets(consumer: Consumer, topic: str) -> tuple[Offsets, Offsets]:
    """First and one past the last offset of every partition of a topic."""
    first, end = {}, {}
    for partition in partitions_of(consumer, topic):
        with kafka_errors():
            first[partition], end[partition] = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=_CALL_SECONDS
            )
    return first, end


def offsets_at(consumer: Consumer, topic: str, moment: datetime) -> Offsets:
    """First offset of every partition whose record is stamped at the moment or later.

    Partitions without such a record are given the end.
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
    """Read every committed record between some offsets.

    Parameters
    ----------
    kafka
        The cluster.
    topic
        The topic.
    start
        Where to begin in each partition; at its first record if not given.
    stop
        Where to end in each partition, exclusive; at its end as it is now if not given.
    since
        Instead of `start`: begin with the first record that is stamped then or later.
    wanted
        Says by its value whether a record is wanted; every one is if not given. Of one that
        is not, nothing else is read.
    buffer_kilobytes
        How much is fetched ahead.

    Yields
    ------
    Record
        The records, in order within each partition.

    Raises
    ------
    MissingResourceError
        If there is no such topic.
    TransientError
        If Kafka is away or falls silent.
    """
    consumer = kafka.consumer(
        # Not a group that anybody joins: only a name that the library insists on.
        "headrace-reader",
        queued_max_messages_kbytes=buffer_kilobytes,
        # As soon as there is room again: librdkafka would wait a second.
        fetch_queue_backoff_ms=10,
        fetch_wait_max_ms=10,
    )
    try:
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
    finally:
        consumer.close()


def _read_to(
    consumer: Consumer, end: Offsets, unread: set[int], wanted: Callable[[bytes], bool] | None
) -> Iterator[Record]:
    heard = time.monotonic()
    while unread:
        messages = _fetch(consumer)
        if any(map(Message.error, messages)):
            unread -= _ended(messages)
            messages = [message for message in messages if message.error() is None]
        for message in messages:
            # In this order, for most are not wanted.
            if (wanted is None or wanted(message.value() or b"")) and (
                (message.offset() or 0) < end[message.partition() or 0]
            ):
                yield Record.of(message)
        # The last of each partition says how far it is read.
        for message in {message.partition(): message for message in messages}.values():
            partition = message.partition() or 0
            if (message.offset() or 0) >= end[partition] - 1:
                unread.discard(partition)
        # Reading may take whoever reads as long as it likes.
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENCE_SECONDS:
            msg = f"Kafka has sent nothing for {_SILENCE_SECONDS:.0f} s although there is more"
            raise ServerTimeoutError(msg)


def _ended(messages: Iterable[Message]) -> set[int]:
    """Partitions that have ended; raises what Kafka says otherwise and will not mend."""
    ended = set()
    for message in messages:
        error = message.error()
        if error is None:
            continue
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            ended.add(message.partition() or 0)
        elif not isinstance(error_of(error), TransientError):
            raise error_of(error)
    return ended


def _fetch(consumer: Consumer) -> list[Message]:
    """Wait for a record, and return it with those that are there already.

    To ask for many at once would be to wait until there are so many, or in vain.
    """
    with kafka_errors():
        first = consumer.poll(_POLL_SECONDS)
        return [] if first is None else [first, *consumer.consume(_BATCH, 0)]


def count_records(kafka: Kafka, topic: str) -> int:
    """How many records a `read_committed` consumer would get of a topic, by reading it.

    Offsets do not tell: the markers of transactions and what was aborted have some, too.
    """
    return sum(1 for _ in read_topic(kafka, topic))


def held_records(kafka: Kafka, topic: str) -> int:
    """How many records a topic without transactions holds, by its offsets."""
    consumer = kafka.consumer("headrace-reader")
    try:
        first, end = end_offsets(consumer, topic)
    finally:
        consumer.close()
    return sum(stop - first[partition] for partition, stop in end.items())


def count_between(consumer: Consumer, topic: str, start: datetime, stop: datetime) -> int:
    """How many records of a topic are stamped in ``[start, stop)``, by their offsets."""
    begin = offsets_at(consumer, topic, start)
    end = offsets_at(consumer, topic, stop)
    return sum(max(0, end[partition] - offset) for partition, offset in begin.items())


def newest(first: Offsets, end: Offsets, records: int) -> Offsets:
    """Offsets from which on each partition holds its newest so many records."""
    return {part: max(first[part], stop - records) for part, stop in end.items()}
