"""Writing batches to InfluxDB so that one bad reading harms no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import structlog
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
from headrace.ingest.batch import Batch, event_time
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES, Reason, RejectedReadingError
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.influx import Influx
from headrace.storage.kafka import Headers, Kafka, Record, error_of
from headrace.storage.kafka_log import read_topic

__all__ = ["BatchWriter", "write_halving"]

_log = structlog.get_logger(__name__)

_DETAIL_CHARACTERS = 500
#: Longer than the producer itself tries.
_CONFIRM_SECONDS = 12.0
_DELIVERY_MS = 10_000
#: For the records of a batch that are read again.
_READ_KILOBYTES = 1024

#: A record that can't be stored, and why.
Rejected = tuple[Record, RejectedReadingError]


def write_halving(
    write: Callable[[bytes], None], lines: Sequence[bytes]
) -> dict[int, RefusedError]:
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
            write(b"\n".join(lines[start:stop]))
        except RefusedError as exc:
            if stop - start == 1:
                refused[start] = exc
            else:
                middle = (start + stop) // 2
                ranges += [(middle, stop), (start, middle)]
    return refused


class BatchWriter:
    """Writes batches to InfluxDB, and what it refuses to the dead letters.

    Thread-safe: several writes may go on at once.

    Parameters
    ----------
    influx
        InfluxDB.
    kafka
        Kafka, for the dead letters, and to read refused readings again.
    profile
        The kind of device.
    codec
        Has written the lines.
    metrics, health
        What the sink says about itself.
    """

    def __init__(
        self,
        influx: Influx,
        kafka: Kafka,
        profile: Profile,
        codec: ReadingCodec,
        metrics: SinkMetrics,
        health: Health,
    ) -> None:
        self._influx = influx
        self._kafka = kafka
        self._producer: Producer = kafka.producer(message_timeout_ms=_DELIVERY_MS)
        self._bucket = profile.buckets.raw
        self._topic = profile.topics.raw
        self._dead_letter_topic = profile.topics.dead_letter
        self._codec = codec
        self._metrics = metrics
        self._health = health
        self._given_up = threading.Event()
        self._influx_attempts = self._attempts("influxdb")
        self._kafka_attempts = self._attempts("kafka")

    def write(self, batches: Sequence[Batch]) -> int:
        """Write batches together, however long it takes.

        InfluxDB that is away, a token that does not fit, a bucket that is missing, a
        disk that is full: none of it is a reading's fault, so it is waited out.

        Returns
        -------
        int
            How many readings InfluxDB has taken.

        Raises
        ------
        HeadraceError
            If it was given up before.
        """
        lines = [line for batch in batches for line in batch.lines]
        refused = write_halving(lambda some: self._influx_attempts(self._write_lines, some), lines)
        rejected = [item for batch in batches for item in batch.rejected]
        if refused:
            errors = {lines[number]: error for number, error in refused.items()}
            rejected += self._kafka_attempts(self._read_refused, batches, errors)
        if rejected:
            self._kafka_attempts(self._send_dead_letters, rejected)
            self._health.fine("kafka")
        return len(lines) - len(refused)

    def check(self) -> None:
        """Find out whether InfluxDB answers, before there is anything to write."""
        try:
            self._influx.ping()
        except HeadraceError as exc:
            self._health.problem("influxdb", str(exc))
        else:
            self._health.fine("influxdb")

    def give_up(self) -> None:
        """Make writes that wait for a server end with an error."""
        self._given_up.set()

    def close(self) -> None:
        """Close the connections."""
        self._producer.flush(5.0)
        self._influx.close()

    def _attempts(self, condition: str) -> Retrying:
        """Calls until it works, and meanwhile says that a server is not well."""

        def not_yet(attempt: RetryCallState) -> None:
            if attempt.outcome is not None:
                self._health.problem(condition, str(attempt.outcome.exception()))

        return Retrying(
            retry=retry_if_exception_type(HeadraceError)
            & retry_if_not_exception_type(RefusedError),
            wait=wait_exponential_jitter(initial=0.1, max=5.0, jitter=0.2),
            stop=stop_when_event_set(self._given_up),
            sleep=sleep_using_event(self._given_up),
            before_sleep=not_yet,
            reraise=True,
        )

    def _write_lines(self, lines: bytes) -> None:
        self._influx.write(self._bucket, lines)
        self._health.fine("influxdb")

    def _read_refused(
        self, batches: Sequence[Batch], refused: Mapping[bytes, RefusedError]
    ) -> list[Rejected]:
        """Find the records of refused lines: whose line is one of them."""
        found: list[Rejected] = []
        missing = set(refused)
        for batch in batches:
            if missing.isdisjoint(batch.lines):
                continue
            place = batch.partition
            for record in read_topic(
                self._kafka,
                self._topic,
                {place: batch.start},
                {place: batch.stop},
                buffer_kilobytes=_READ_KILOBYTES,
            ):
                line = self._line(record)
                if line in refused:
                    rejection = RejectedReadingError(Reason.INFLUX_REFUSED, str(refused[line]))
                    found.append((record, rejection))
                    missing.discard(line)
        if missing:
            _log.error(
                "InfluxDB refuses readings that Kafka no longer keeps, so they are lost",
                readings=len(missing),
                one_of_them=min(missing).decode(),
            )
        return found

    def _line(self, record: Record) -> bytes:
        """The line of a record; empty if it has none."""
        try:
            time_ns = event_time(record.headers.get("time_ns"), record.timestamp_ms)
            return self._codec.line(record.value, time_ns)
        except RejectedReadingError:
            return b""

    def _send_dead_letters(self, rejected: list[Rejected]) -> None:
        """Produce dead letters, and wait for Kafka's reports.

        One that was confirmed is taken out of the list, and so not sent again; one whose
        report went missing may be, which its header ``source`` tells.
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
            for number, (record, rejection) in enumerate(rejected):
                self._producer.produce(
                    self._dead_letter_topic,
                    record.value[:MAX_DEAD_LETTER_BYTES],
                    record.key,
                    headers=_dead_letter_headers(record, rejection),
                    on_delivery=reporter(number),
                )
                self._producer.poll(0)
            self._producer.flush(_CONFIRM_SECONDS)
        except (BufferError, KafkaException) as exc:
            msg = f"a dead letter can't be produced: {exc}"
            raise ServerTimeoutError(msg) from exc
        for number in confirmed:
            reason = rejected[number][1].reason.value
            self._metrics.rejected.labels(reason).inc()
        rejected[:] = [item for number, item in enumerate(rejected) if number not in confirmed]
        if failures:
            raise failures[0]
        if rejected:
            msg = "Kafka did not confirm the dead letters in time"
            raise ServerTimeoutError(msg)


def _dead_letter_headers(record: Record, rejection: RejectedReadingError) -> Headers:
    kept = record.headers
    return [
        ("reason", rejection.reason.value),
        ("detail", rejection.detail[:_DETAIL_CHARACTERS]),
        ("size", str(len(record.value))),
        ("source", f"{record.topic}/{record.partition}/{record.offset}"),
        *(
            (name, kept[name])
            for name in ("time_ns", "topic", "bridge", "packet_id", "taken_ns")
            if name in kept
        ),
    ]
