"""The sink moves readings from Kafka to InfluxDB and commits only written readings."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from itertools import groupby

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.errors import FatalError, HeadraceError, TransientError
from headrace.ingest.batch import Batch, OpenBatches
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.commits import Commits
from headrace.ingest.gaps import GapDetector
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.ingest.writes import Writes
from headrace.profile import Profile
from headrace.storage.kafka import FatalErrors, error_of
from headrace.storage.kafka_errors import consumer_acl

__all__ = ["Sink"]

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.5
_BUSY_SECONDS = 0.02
_FETCH_RECORDS = 1000
#: Partitions are paused if a write takes this long.
_PATIENCE_SECONDS = 1.0
_REVOKE_SECONDS = 10.0
_CHECK_SECONDS = 10.0


class Sink:
    """Moves readings from Kafka to InfluxDB.

    Several writes run at once. Offsets are committed in order, never past an unwritten reading.
    While InfluxDB is unavailable, the partitions are paused and the consumer continues to poll,
    so it stays in its group.

    Parameters
    ----------
    consumer
        Kafka's consumer, not yet subscribed.
    fatal
        The consumer's ``error_cb``.
    commits
        Receives the outcome of each commit from the consumer.
    profile
        The kind of device.
    batches
        Collects readings.
    writer
        Writes batches.
    writes
        The pending writes.
    metrics, health
        Metrics and health of the sink.
    stop
        Set when the sink must stop.
    drain_limit
        Time limit for stopping.
    """

    def __init__(
        self,
        consumer: Consumer,
        fatal: FatalErrors,
        commits: Commits,
        profile: Profile,
        batches: OpenBatches,
        writer: BatchWriter,
        writes: Writes,
        metrics: SinkMetrics,
        health: Health,
        *,
        stop: threading.Event,
        drain_limit: timedelta,
    ) -> None:
        self._consumer = consumer
        self._fatal = fatal
        self._commits = commits
        self._topic = profile.topics.raw
        self._group = profile.sink_group
        self._open = batches
        self._writer = writer
        self._writes = writes
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._drain_seconds = drain_limit.total_seconds()
        self._gaps = GapDetector(profile.topics.raw)
        #: Stored here, because a closing consumer no longer returns its assignment.
        self._partitions: set[int] = set()
        #: One past the last record in a batch, by partition.
        self._submitted: dict[int, int] = {}
        self._paused = False
        self._blocked_since: float | None = None
        self._next_check = 0.0

    def run(self) -> None:
        """Run until `stop` is set, then finish fetched records.

        Raises
        ------
        FatalError
            If the consumer or the producer of dead letters is unusable.
        HeadraceError
            If Kafka refuses permanently. A new process starts at the last commit.
        """
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        try:
            while not self._stop.is_set():
                self._turn()
        except HeadraceError:
            # Waiting writes would keep the process alive. Nothing more is committed.
            self._writes.give_up()
            raise
        self._drain()

    def _turn(self) -> None:
        self._health.beat()
        self._fatal.check()
        self._settle()
        if not self._writes and time.monotonic() >= self._next_check:
            # Without writes, only this check detects that InfluxDB is unavailable.
            self._next_check = time.monotonic() + _CHECK_SECONDS
            self._writer.check()
        while self._writes.has_room() and (due := self._open.take_due()):
            self._submit(due)
        if self._open.full():
            self._wait_for_room()
            return
        self._resume()
        if self._knows_where_to_begin():
            self._add(self._fetch())

    def _knows_where_to_begin(self) -> bool:
        """Make sure that deleted records before the first one of a partition are detected."""
        if self._gaps.ready:
            return True
        try:
            self._gaps.learn(self._consumer)
        except TransientError as exc:
            self._health.problem("kafka", str(exc))
            self._stop.wait(_IDLE_SECONDS)
        return self._gaps.ready

    def _fetch(self) -> list[Message]:
        """Wait briefly for a record; return it with all that have arrived."""
        busy = self._open or self._writes
        try:
            first = self._consumer.poll(_BUSY_SECONDS if busy else _IDLE_SECONDS)
            if first is None:
                return []
            more = min(self._open.room - 1, _FETCH_RECORDS)
            return [first, *self._consumer.consume(more, 0)] if more > 0 else [first]
        except KafkaException as exc:
            self._report(exc.args[0])
            return []

    def _add(self, messages: list[Message]) -> None:
        # One poll can assign partitions and fetch their first records.
        while messages and not self._knows_where_to_begin():
            self._health.beat()
            if self._stop.is_set():
                return
        # In order, because records can follow the end of a partition.
        for is_record, run in groupby(messages, lambda message: message.error() is None):
            if is_record:
                records = list(run)
                self._look_for_gaps(records)
                self._open.add(records)
                self._health.fine("kafka")
            else:
                for message in run:
                    error = message.error()
                    if error is not None:
                        self._note(message, error)

    def _look_for_gaps(self, records: list[Message]) -> None:
        for partition, run in groupby(records, Message.partition):
            offsets = [message.offset() or 0 for message in run]
            self._advance(partition or 0, offsets[0], offsets[-1] + 1)

    def _advance(self, partition: int, offset: int, stop: int) -> None:
        lost = self._gaps.advance(self._consumer, partition, offset, stop)
        if lost is not None:
            self._open.lost(lost)

    def _note(self, message: Message, error: KafkaError) -> None:
        """Handle events and errors that the consumer returns instead of a record."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            # Transaction markers can follow the last reading, and the end of a partition without
            # records must be committed, too.
            partition, offset = message.partition() or 0, message.offset() or 0
            self._advance(partition, offset, offset)
            self._reached(partition, offset)
            self._health.fine("kafka")
        else:
            self._report(error)

    def _reached(self, partition: int, offset: int) -> None:
        stops = {batch.partition: batch.stop for batch in self._open}
        # A lower offset means that the topic was created again.
        if offset != stops.get(partition, self._submitted.get(partition, -1)):
            self._open.reached(partition, offset)

    def _report(self, error: KafkaError) -> None:
        """Report an error of librdkafka, which recovers unless the error is fatal."""
        problem = error_of(error, consumer_acl(error, self._topic, self._group))
        if isinstance(problem, FatalError):
            raise problem
        self._health.problem("kafka", str(problem))

    def _submit(self, batches: list[Batch]) -> None:
        self._submitted.update({batch.partition: batch.stop for batch in batches})
        self._writes.submit(batches)
        self._metrics.in_flight.set(len(self._writes))

    def _settle(self) -> None:
        """Commit written offsets in order."""
        settled = False
        for written, stops in self._writes.finished():
            self._metrics.written.inc(written)
            self._commits.written(stops)
            settled = True
        self._metrics.in_flight.set(len(self._writes))
        if settled:
            self._commits.send(self._consumer)
        else:
            self._commits.send_if_failed(self._consumer)

    def _wait_for_room(self) -> None:
        """Wait for the end of a write without leaving the group."""
        now = time.monotonic()
        if self._blocked_since is None:
            self._blocked_since = now
        if not self._paused and now - self._blocked_since > _PATIENCE_SECONDS:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
            self._metrics.paused.set(1)
        if self._paused:
            # Paused partitions deliver nothing, but polling keeps the sink in its group.
            message = self._consumer.poll(0.1)
            if message is not None:
                self._add([message])
        else:
            self._writes.wait(0.05)

    def _resume(self) -> None:
        self._blocked_since = None
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False
            self._metrics.paused.set(0)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = sorted(item.partition for item in partitions)
        _log.info("partitions assigned", partitions=numbers)
        consumer.incremental_assign(partitions)
        self._partitions.update(numbers)
        self._gaps.assigned(numbers)
        if self._paused:
            consumer.pause(partitions)
        self._metrics.partitions.set(len(self._partitions))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish fetched records before another sink takes over the partitions."""
        numbers = {item.partition for item in partitions}
        _log.info("partitions revoked", partitions=sorted(numbers))
        self._finish(min(_REVOKE_SECONDS, self._drain_seconds))
        self._drop(numbers)
        consumer.incremental_unassign(partitions)
        self._metrics.partitions.set(len(self._partitions))

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop partitions that another sink has already taken over."""
        numbers = {item.partition for item in partitions}
        _log.warning("partitions lost", partitions=sorted(numbers))
        self._drop(numbers)
        consumer.incremental_unassign(partitions)
        self._metrics.partitions.set(len(self._partitions))

    def _drop(self, partitions: set[int]) -> None:
        """Stop committing these partitions; their readings may still be written."""
        self._open.drop(partitions)
        self._writes.drop(partitions)
        for partition in partitions:
            self._submitted.pop(partition, None)
        self._partitions -= partitions
        self._gaps.drop(partitions)
        self._commits.drop(partitions)

    def _finish(self, seconds: float) -> None:
        """Write and commit fetched records within a time limit."""
        deadline = time.monotonic() + seconds
        while self._open:
            self._submit(self._open.take())
        while self._writes and (remaining := deadline - time.monotonic()) > 0:
            self._writes.wait(remaining)
            self._settle()
        self._commits.send(self._consumer, wait=True)

    def _drain(self) -> None:
        """Stop in order: stop fetching, write, commit, leave the group."""
        self._finish(self._drain_seconds)
        left = self._writes.readings
        self._writes.give_up()
        self._drop(set(self._partitions))
        self._consumer.close()
        self._writes.close()
        self._writer.close()
        if left:
            _log.warning(
                "stopped before all readings were written; Kafka keeps them", readings=left
            )
