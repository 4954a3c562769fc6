"""Batches of readings, and writing them so that one bad reading harms no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_when_event_set,
    wait_exponential_jitter,
)
from tenacity.nap import sleep_using_event

from headrace.errors import HeadraceError, RefusedError, ServerTimeoutError
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES, Reason, RejectedReadingError
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.influx import Influx
from headrace.storage.kafka import Headers, error_of, headers_of

__all__ = ["Batch", "BatchWriter", "write_halving"]

_DETAIL_CHARACTERS = 500
#: Longer than the producer itself tries (message.timeout.ms in `factory`).
_CONFIRM_SECONDS = 12.0

_T = TypeVar("_T")


class Batch:
    """Readings that are written together, and the offsets behind them.

    Attributes
    ----------
    lines
        Line protocol, one line a reading.
    offsets
        By partition: one past the last record that is in the batch or was passed over.
    payload_bytes
        Length of the payloads.
    begun
        When the batch was begun, on the monotonic clock.
    written
        Readings that InfluxDB took; known after the write.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.messages: list[Message] = []
        self.rejected: list[tuple[Message, RejectedReadingError]] = []
        self.offsets: dict[int, int] = {}
        self.payload_bytes = 0
        self.begun = time.monotonic()
        self.written = 0

    def __bool__(self) -> bool:
        return bool(self.offsets)

    def add(self, message: Message, codec: ReadingCodec) -> None:
        """Add a reading.

        Raises
        ------
        RejectedReadingError
            If the record holds no reading that can be stored.
        """
        value = message.value() or b""
        self.lines.append(codec.line(value, _time_ns(message)))
        self.messages.append(message)
        self.payload_bytes += len(value)
        self._passed(message)

    def reject(self, message: Message, rejection: RejectedReadingError) -> None:
        """Note a record that holds no reading."""
        self.rejected.append((message, rejection))
        self.payload_bytes += len(message.value() or b"")
        self._passed(message)

    def reached(self, partition: int, offset: int) -> None:
        """Note that a partition holds nothing before this offset that is not read."""
        self.offsets[partition] = offset

    def drop_offsets(self, partitions: set[int]) -> None:
        """Forget the offsets of partitions that are no longer ours."""
        for partition in partitions:
            self.offsets.pop(partition, None)

    def _passed(self, message: Message) -> None:
        if not self.offsets:
            self.begun = time.monotonic()
        self.offsets[message.partition() or 0] = (message.offset() or 0) + 1


def _time_ns(message: Message) -> int:
    # The bridge puts it first; looking no further saves a dictionary a reading.
    for name, value in cast("list[tuple[str, bytes | None]]", message.headers() or ()):
        if name == "time_ns":
            try:
                return int(value or b"")
            except ValueError as exc:
                detail = f"header time_ns is {(value or b'')[:50]!r}"
                raise RejectedReadingError(Reason.TIME_INVALID, detail) from exc
    # A record that no bridge wrote: Kafka's own stamp is what there is.
    return message.timestamp()[1] * 1_000_000


def write_halving(write: Callable[[bytes], None], lines: Sequence[str]) -> dict[int, RefusedError]:
    """Write lines so that those which InfluxDB refuses keep no other back.

    A refusal names one point, or none. So the lines are halved until the refused ones
    stand alone; what is written twice on the way is the same point.

    Parameters
    ----------
    write
        Writes lines, and raises `RefusedError` if InfluxDB refuses some or all of them.
    lines
        Line protocol.

    Returns
    -------
    dict
        The refused lines, by their place, and InfluxDB's reason.
    """
    refused: dict[int, RefusedError] = {}
    # Ranges still to be written. (A function that calls itself would keep the lines in a
    # cycle, and so in memory until Python next looks for cycles.)
    ranges = [(0, len(lines))] if lines else []
    while ranges:
        start, stop = ranges.pop()
        try:
            write("\n".join(lines[start:stop]).encode())
        except RefusedError as exc:
            if stop - start == 1:
                refused[start] = exc
            else:
                middle = (start + stop) // 2
                ranges += [(middle, stop), (start, middle)]
    return refused


class BatchWriter:
    """Writes batches to InfluxDB, and what it refuses to the dead letters.

    Thread-safe: several batches may be written at once.

    Parameters
    ----------
    influx
        InfluxDB.
    producer
        Kafka's producer, for the dead letters.
    profile
        The kind of device.
    metrics, health
        What the sink says about itself.
    """

    def __init__(
        self,
        influx: Influx,
        producer: Producer,
        profile: Profile,
        metrics: SinkMetrics,
        health: Health,
    ) -> None:
        self._influx = influx
        self._producer = producer
        self._bucket = profile.buckets.raw
        self._dead_letter_topic = profile.topics.dead_letter
        self._metrics = metrics
        self._health = health
        self._given_up = threading.Event()
        self._attempts = Retrying(
            retry=retry_if_exception_type(HeadraceError)
            & retry_if_not_exception_type(RefusedError),
            wait=wait_exponential_jitter(initial=0.1, max=5.0, jitter=0.2),
            stop=stop_when_event_set(self._given_up),
            sleep=sleep_using_event(self._given_up),
            before_sleep=self._not_written,
            reraise=True,
        )

    def write(self, batch: Batch) -> None:
        """Write a batch, however long it takes.

        InfluxDB that is away, a token that does not fit, a bucket that is missing, a
        disk that is full: none of it is a reading's fault, so it is waited out.
        """
        refused = write_halving(
            lambda lines: self._waiting_out(self._write_lines, lines), batch.lines
        )
        batch.written = len(batch.lines) - len(refused)
        for number, error in refused.items():
            rejection = RejectedReadingError(Reason.INFLUX_REFUSED, str(error))
            batch.rejected.append((batch.messages[number], rejection))
        if batch.rejected:
            self._waiting_out(self._send_dead_letters, batch)

    def check(self) -> None:
        """Find out whether InfluxDB answers, before there is anything to write."""
        try:
            self._influx.ping()
        except HeadraceError as exc:
            self._health.problem("influxdb", str(exc))
        else:
            self._health.fine("influxdb")

    def give_up(self) -> None:
        """Make writes that wait for InfluxDB end with an error."""
        self._given_up.set()

    def close(self) -> None:
        """Close the connections."""
        self._producer.flush(5.0)
        self._influx.close()

    def _write_lines(self, lines: bytes) -> None:
        self._influx.write(self._bucket, lines)
        self._health.fine("influxdb")

    def _waiting_out(self, call: Callable[[_T], None], argument: _T) -> None:
        """Call until it works, or until it is clear that it never will."""
        self._attempts(call, argument)

    def _not_written(self, attempt: RetryCallState) -> None:
        if attempt.outcome is not None:
            self._health.problem("influxdb", str(attempt.outcome.exception()))

    def _send_dead_letters(self, batch: Batch) -> None:
        """Produce the dead letters of a batch, and wait for Kafka's reports.

        One that was confirmed is not sent again; one whose report went missing may be,
        which its header ``source`` tells.
        """
        confirmed: set[int] = set()
        failures: list[HeadraceError] = []

        def reporter(number: int) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, _: Message) -> None:
                if error is None:
                    confirmed.add(number)
                else:
                    failures.append(error_of(error))

            return report

        try:
            for number, (message, rejection) in enumerate(batch.rejected):
                self._producer.produce(
                    self._dead_letter_topic,
                    (message.value() or b"")[:MAX_DEAD_LETTER_BYTES],
                    message.key(),
                    headers=_dead_letter_headers(message, rejection),
                    on_delivery=reporter(number),
                )
                self._producer.poll(0)
            self._producer.flush(_CONFIRM_SECONDS)
        except (BufferError, KafkaException) as exc:
            msg = f"a dead letter can't be produced: {exc}"
            raise ServerTimeoutError(msg) from exc
        for number in confirmed:
            reason = batch.rejected[number][1].reason.value
            self._metrics.rejected.labels(reason).inc()
        batch.rejected = [
            item for number, item in enumerate(batch.rejected) if number not in confirmed
        ]
        if failures:
            raise failures[0]
        if batch.rejected:
            msg = "Kafka did not confirm the dead letters in time"
            raise ServerTimeoutError(msg)


def _dead_letter_headers(message: Message, rejection: RejectedReadingError) -> Headers:
    kept = headers_of(message)
    return [
        ("reason", rejection.reason.value),
        ("detail", rejection.detail[:_DETAIL_CHARACTERS]),
        ("size", str(len(message.value() or b""))),
        ("source", f"{message.topic()}/{message.partition()}/{message.offset()}"),
        *(
            (name, kept[name])
            for name in ("time_ns", "topic", "bridge", "packet_id", "taken_ns")
            if name in kept
        ),
    ]
