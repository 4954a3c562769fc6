"""The sink: from Kafka to InfluxDB, committed only up to the first unwritten reading."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.ingest.batch import Batch, OpenBatches
from headrace.ingest.batch_writer import BatchWriter
from headrace.ingest.commits import Commits
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.profile import Profile
from headrace.storage.kafka import error_of

__all__ = ["Sink"]

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.5
_BUSY_SECONDS = 0.02
_FETCH_RECORDS = 1000
#: Writes that have been under way for so long mean that InfluxDB can't keep up.
_PATIENCE_SECONDS = 1.0
_REVOKE_SECONDS = 10.0
_CHECK_SECONDS = 10.0


class Sink:
    """Moves readings from Kafka to InfluxDB.

    Several writes are under way at once; offsets are committed in order, so never past a
    reading that is not written. While InfluxDB is away the partitions are paused, and
    the consumer goes on to poll, so it stays in its group.

    Parameters
    ----------
    consumer
        Kafka's consumer, not yet subscribed.
    commits
        Told by the consumer of each commit's outcome.
    profile
        The kind of device.
    batches
        Collects readings.
    writer
        Writes batches.
    metrics, health
        What the sink says about itself.
    stop
        Set when the sink is to stop.
    writes_in_flight
        Writes under way at once.
    drain_limit
        How long it may take to stop.
    """

    def __init__(
        self,
        consumer: Consumer,
        commits: Commits,
        profile: Profile,
        batches: OpenBatches,
        writer: BatchWriter,
        metrics: SinkMetrics,
        health: Health,
        *,
        stop: threading.Event,
        writes_in_flight: int,
        drain_limit: timedelta,
    ) -> None:
        self._consumer = consumer
        self._commits = commits
        self._topic = profile.topics.raw
        self._open = batches
        self._writer = writer
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._writes_in_flight = writes_in_flight
        self._drain_seconds = drain_limit.total_seconds()
        self._pool = ThreadPoolExecutor(writes_in_flight, thread_name_prefix="write")
        #: In each write, the batches that are to be committed when it is done.
        self._under_way: deque[tuple[list[Batch], Future[int]]] = deque()
        #: Kept here, for a consumer that is being closed does not tell any more.
        self._partitions: set[int] = set()
        #: By partition: up to where records are in batches.
        self._submitted: dict[int, int] = {}
        self._paused = False
        self._blocked_since: float | None = None
        self._next_check = 0.0

    def run(self) -> None:
        """Work until told to stop, then drain.

        Raises
        ------
        HeadraceError
            If Kafka refuses for good, or a write failed in a way that waiting does not
            mend; a new process begins anew at the last commit.
        """
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        while not self._stop.is_set():
            self._turn()
        self._drain()

    def _turn(self) -> None:
        self._health.beat()
        self._settle()
        if not self._under_way and time.monotonic() >= self._next_check:
            # Without readings to write, nothing else would tell.
            self._next_check = time.monotonic() + _CHECK_SECONDS
            self._writer.check()
        while self._has_room() and (due := self._open.take_due()):
            self._submit(due)
        if self._open.full():
            self._wait_for_room()
            return
        self._resume()
        self._add(self._fetch())

    def _fetch(self) -> list[Message]:
        """Wait a little for a record, and return it with what is there already."""
        busy = self._open or self._under_way
        try:
            first = self._consumer.poll(_BUSY_SECONDS if busy else _IDLE_SECONDS)
            if first is None:
                return []
            more = min(self._open.room - 1, _FETCH_RECORDS)
            return [first, *self._consumer.consume(more, 0)] if more > 0 else [first]
        except KafkaException as exc:
            self._complain(exc.args[0])
            return []

    def _add(self, messages: list[Message]) -> None:
        records = [message for message in messages if message.error() is None]
        if records:
            self._open.add(records)
            self._health.fine("kafka")
        if len(records) < len(messages):
            for message in messages:
                error = message.error()
                if error is not None:
                    self._note(message, error)

    def _note(self, message: Message, error: KafkaError) -> None:
        """Take what Kafka's consumer says in place of a record."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            # Beyond the last reading there may be markers of transactions, and a
            # partition without any record has an end to commit, too.
            self._reached(message.partition() or 0, message.offset() or 0)
            self._health.fine("kafka")
        else:
            self._complain(error)

    def _reached(self, partition: int, offset: int) -> None:
        stops = {batch.partition: batch.stop for batch in self._open}
        if offset > stops.get(partition, self._submitted.get(partition, -1)):
            self._open.reached(partition, offset)

    def _complain(self, error: KafkaError) -> None:
        """Report what librdkafka says. It goes on by itself unless the error is fatal."""
        mapped = error_of(error)
        if error.fatal():
            raise mapped
        self._health.problem("kafka", str(mapped))

    def _has_room(self) -> bool:
        return len(self._under_way) < self._writes_in_flight

    def _submit(self, batches: list[Batch]) -> None:
        self._submitted.update({batch.partition: batch.stop for batch in batches})
        self._under_way.append((batches, self._pool.submit(self._writer.write, tuple(batches))))
        self._metrics.in_flight.set(len(self._under_way))

    def _settle(self) -> None:
        """Commit, in order, what is written."""
        settled = False
        while self._under_way and self._under_way[0][1].done():
            self._settle_oldest()
            settled = True
        self._metrics.in_flight.set(len(self._under_way))
        if settled:
            self._commits.send(self._consumer)
        else:
            self._commits.send_if_failed(self._consumer)

    def _settle_oldest(self) -> None:
        batches, write = self._under_way.popleft()
        self._metrics.written.inc(write.result())
        self._commits.written({batch.partition: batch.stop for batch in batches})

    def _wait_for_room(self) -> None:
        """Wait for a write to end, without leaving the group."""
        now = time.monotonic()
        if self._blocked_since is None:
            self._blocked_since = now
        if not self._paused and now - self._blocked_since > _PATIENCE_SECONDS:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
            self._metrics.paused.set(1)
        if self._paused:
            # Nothing comes from paused partitions, but the group sees that we live.
            message = self._consumer.poll(0.1)
            if message is not None:
                self._add([message])
        else:
            _, write = self._under_way[0]
            _wait(write, 0.05)

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
        if self._paused:
            consumer.pause(partitions)
        self._metrics.partitions.set(len(self._partitions))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is begun before another sink takes the partitions over."""
        numbers = {item.partition for item in partitions}
        _log.info("partitions revoked", partitions=sorted(numbers))
        self._finish(min(_REVOKE_SECONDS, self._drain_seconds))
        self._drop(numbers)
        consumer.incremental_unassign(partitions)
        self._metrics.partitions.set(len(self._partitions))

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop what another sink has taken over already."""
        numbers = {item.partition for item in partitions}
        _log.warning("partitions lost", partitions=sorted(numbers))
        self._drop(numbers)
        consumer.incremental_unassign(partitions)
        self._metrics.partitions.set(len(self._partitions))

    def _drop(self, partitions: set[int]) -> None:
        """Never commit for these partitions again; their readings may still be written."""
        self._open.drop(partitions)
        for batches, _ in self._under_way:
            batches[:] = [batch for batch in batches if batch.partition not in partitions]
        for partition in partitions:
            self._submitted.pop(partition, None)
        self._partitions -= partitions
        self._commits.drop(partitions)

    def _finish(self, seconds: float) -> None:
        """Write what was fetched and commit it, within a limit."""
        deadline = time.monotonic() + seconds
        while self._open:
            self._submit(self._open.take())
        while self._under_way:
            _, write = self._under_way[0]
            _wait(write, max(0.0, deadline - time.monotonic()))
            if not write.done():
                break
            self._settle_oldest()
        self._commits.send(self._consumer, wait=True)

    def _drain(self) -> None:
        """Stop in order: fetch nothing, write, commit, leave the group."""
        self._finish(self._drain_seconds)
        left = sum(len(batch) for batches, _ in self._under_way for batch in batches)
        self._writer.give_up()
        self._drop(set(self._partitions))
        self._under_way.clear()
        self._consumer.close()
        self._pool.shutdown(wait=True)
        self._writer.close()
        if left:
            _log.warning("stopped before InfluxDB had everything; Kafka keeps it", readings=left)


def _wait(write: Future[int], seconds: float) -> None:
    """Wait for a write to end, and leave its outcome for later."""
    done = threading.Event()
    write.add_done_callback(lambda _: done.set())
    done.wait(seconds)
