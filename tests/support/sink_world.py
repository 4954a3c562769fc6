"""Fake Kafka and InfluxDB that misbehave, for unit tests of the sink."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from headrace.errors import RefusedError, ServerUnavailableError
from tests.support.devices import reading

__all__ = ["TOPIC", "Cluster", "Database", "raw_message", "run_until"]

TOPIC = "kafka_raw"


def raw_message(offset: int, value: bytes | None = None, partition: int = 0) -> Message:
    """Return a raw record whose reading has the offset as its fuel."""
    payload = json.dumps(reading("g1", fuel=offset)).encode() if value is None else value
    return Message(
        topic=TOPIC,
        partition=partition,
        offset=offset,
        key=b"g1",
        value=payload,
        headers=[("time_ns", b"%d" % (1_700_000_000_000_000_000 + offset))],
        timestamp=(1, 1_700_000_000_000),
    )


class Database:
    """An InfluxDB that can be unavailable and refuses lines with a certain text."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self.away = False
        self.refused = b"nothing"

    def write(self, bucket: str, data: bytes) -> None:
        assert bucket
        if self.away:
            msg = "InfluxDB does not answer"
            raise ServerUnavailableError(msg)
        if self.refused in data:
            msg = "field type conflict"
            raise RefusedError(msg)
        self.lines.update(data.split(b"\n"))

    def ping(self) -> None:
        """Do nothing: the server is available."""

    def close(self) -> None:
        """Nothing is open."""

    @property
    def fuel(self) -> list[int]:
        """Return the written readings by their fuel."""
        found = [line.rpartition(b" ")[0].rpartition(b"fuel=")[2] for line in self.lines]
        return sorted(int(float(value)) for value in found if value)


class Cluster:
    """Kafka as the sink uses it: consumer, producer of dead letters, commits.

    Attributes
    ----------
    fetched
        Messages that the consumer returns next.
    committed_offsets
        Committed offsets by partition.
    letters
        Records on the dead-letter topic: value and headers.
    letter_topic_missing
        Whether the dead-letter topic does not exist.
    letter_error
        Error that the producer reports for every dead letter.
    commit_error
        Error of every commit.
    """

    def __init__(self) -> None:
        self.fetched: deque[Message] = deque()
        self.committed_offsets: dict[int, int] = {}
        self.first = 0
        self.letters: list[tuple[bytes, dict[str, Any]]] = []
        self.letter_topic_missing = False
        self.letter_error: KafkaError | None = None
        self.fatal: KafkaError | None = None
        self.commit_error: KafkaError | None = None
        self.paused = False
        self.closed = False
        self.report: Callable[..., None] = lambda *_: None
        self.metadata: list[str] = []
        self._callbacks: dict[str, Any] = {}

    # Interface of `Kafka`
    def producer(self, **settings: Any) -> LetterProducer:
        return LetterProducer(self, settings["error_cb"])

    def consumer(self, group: str, **_: Any) -> Ledger:
        return Ledger(self, group)

    # Interface of the sink's consumer
    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        assert topics
        self._callbacks = callbacks

    def poll(self, seconds: float = 0) -> Message | None:
        assign = self._callbacks.pop("on_assign", None)
        if assign is not None:
            assign(self, [TopicPartition(TOPIC, 0)])
        if not self.fetched or self.paused:
            time.sleep(min(seconds, 0.005))
            return None
        return self.fetched.popleft()

    def consume(self, number: int, _: float) -> list[Message]:
        return [self.fetched.popleft() for _ in range(min(number, len(self.fetched)))]

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, 0)]

    def pause(self, _: list[TopicPartition]) -> None:
        self.paused = True

    def resume(self, _: list[TopicPartition]) -> None:
        self.paused = False

    def incremental_assign(self, _: list[TopicPartition]) -> None:
        """Do nothing: the fake starts at the commit."""

    def incremental_unassign(self, _: list[TopicPartition]) -> None:
        """Do nothing: the fake fetches nothing more."""

    def committed(self, places: list[TopicPartition], **_: Any) -> list[TopicPartition]:
        known = self.committed_offsets
        return [
            TopicPartition(item.topic, item.partition, known.get(item.partition, -1001))
            for item in places
        ]

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return self.first, 1_000_000

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition]:
        if self.commit_error is not None:
            raise KafkaException(self.commit_error)
        self.committed_offsets.update({item.partition: item.offset for item in offsets})
        if asynchronous:
            self.report(None, offsets)
        return offsets

    def revoke(self) -> None:
        """Give the partition to another sink."""
        self._callbacks["on_revoke"](self, [TopicPartition(TOPIC, 0)])

    def lose(self) -> None:
        """Report that another sink already has the partition."""
        self._callbacks["on_lost"](self, [TopicPartition(TOPIC, 0)])

    def close(self) -> None:
        # The real consumer revokes the partitions while it leaves the group.
        self._callbacks.pop("on_revoke", lambda *_: None)(self, self.assignment())
        self.closed = True


class LetterProducer:
    """The producer of dead letters."""

    def __init__(self, cluster: Cluster, error_cb: Callable[[KafkaError], None]) -> None:
        self._cluster = cluster
        self._error_cb = error_cb
        self._delivery: list[tuple[Any, bytes, dict[str, Any]]] = []

    def poll(self, _: float) -> int:
        return 0

    def produce(
        self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Any
    ) -> None:
        assert topic
        assert key is not None
        self._delivery.append((on_delivery, value, dict(headers)))

    def flush(self, _: float) -> int:
        cluster = self._cluster
        error = cluster.letter_error
        if cluster.letter_topic_missing:
            error = KafkaError(KafkaError._UNKNOWN_TOPIC)
        if cluster.fatal is not None:
            self._error_cb(cluster.fatal)
        for report, value, headers in self._delivery:
            if error is None:
                cluster.letters.append((value, headers))
            report(error, None)
        self._delivery = []
        return 0


class Ledger:
    """The consumer that stores reports of losses as commits."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        assert group.startswith("headrace-lost-")
        self._cluster = cluster

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        self._cluster.metadata += [item.metadata for item in offsets]

    def close(self) -> None:
        """Nothing is open."""


def run_until(
    condition: Callable[[], bool], run: Callable[[], None], stop: threading.Event
) -> None:
    """Run a function in a thread until a condition is true, then stop it and wait."""
    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 10
    try:
        while not condition():
            assert time.monotonic() < deadline, "it took too long"
            assert thread.is_alive(), "it ended"
            time.sleep(0.005)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
