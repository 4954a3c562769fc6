"""Sends records that the sink could not store to the dead-letter topic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headrace.errors import HeadraceError, MissingResourceError, ServerTimeoutError
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES, Rejection
from headrace.models.event_time import TIME_HEADER, event_time
from headrace.models.lost import LostRecords
from headrace.profile import Profile
from headrace.storage.kafka import FatalErrors, Headers, Kafka, Record, error_of
from headrace.storage.lost_ledger import LostLedger
from headrace.storage.lost_records import lost_headers
from headrace.storage.retries import until_it_works

__all__ = ["DeadLetters", "Rejected", "Unstored"]

_log = structlog.get_logger(__name__)

_DETAIL_CHARACTERS = 500
#: Time limit for delivery reports, longer than the producer's retries.
_CONFIRM_SECONDS = 12.0
_DELIVERY_MS = 10_000
#: Headers that a dead letter copies from its raw record.
_KEPT = (TIME_HEADER, "topic", "bridge", "packet_id", "taken_ns")
#: Maximum length of a copied key or header, because foreign records can have longer ones.
_KEPT_BYTES = 4096
#: Maximum number of lost ranges in ``/healthz``.
_NAMED = 20

#: A record that can't be stored, and the reason.
Rejected = tuple[Record, Rejection]


@dataclass
class Unstored:
    """Result of a write, with the records that it could not store.

    Parameters
    ----------
    readings
        Number of readings that InfluxDB accepted.
    rejected
        Records whose reading can't be stored.
    lost
        Records that Kafka deleted before they were written.
    """

    readings: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    lost: list[LostRecords] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rejected or self.lost)

    @property
    def payload_bytes(self) -> int:
        """Memory of the payloads, in bytes."""
        return sum(len(record.value) for record, _ in self.rejected)


@dataclass(frozen=True)
class _Letter:
    """A record for the dead-letter topic. A rejected reading has a reason."""

    key: bytes
    value: bytes
    headers: Headers
    reason: str | None = None

    @classmethod
    def of(cls, record: Record, rejection: Rejection) -> _Letter:
        kept = dict(record.headers)
        # A record without a time gets its time of arrival, which `replay` needs.
        kept.setdefault(TIME_HEADER, event_time(None, record.timestamp_ms))
        reason = rejection.reason.value
        headers: Headers = [
            ("reason", reason),
            ("detail", rejection.detail[:_DETAIL_CHARACTERS]),
            ("size", str(len(record.value))),
            ("source", f"{record.topic}/{record.partition}/{record.offset}"),
        ]
        headers += [(name, kept[name][:_KEPT_BYTES]) for name in _KEPT if name in kept]
        value = record.value[:MAX_DEAD_LETTER_BYTES]
        return cls(record.key[:_KEPT_BYTES], value, headers, reason)


class DeadLetters:
    """Sends rejected readings, and reports of lost records, to the dead-letter topic.

    Parameters
    ----------
    kafka
        The cluster.
    profile
        The kind of device.
    metrics, health
        Metrics and health of the sink.
    """

    def __init__(
        self, kafka: Kafka, profile: Profile, metrics: SinkMetrics, health: Health
    ) -> None:
        self._fatal = FatalErrors()
        self._producer: Producer = kafka.producer(
            message_timeout_ms=_DELIVERY_MS, error_cb=self._fatal
        )
        self._ledger = LostLedger(kafka, profile)
        self._topic = profile.topics.dead_letter
        self._metrics = metrics
        self._health = health
        self._lost: list[LostRecords] = []
        self._given_up = threading.Event()
        self._attempts = until_it_works(partial(health.problem, "dead_letters"), self._given_up)
        health.fine("dead_letters")

    def send(self, unstored: Unstored) -> None:
        """Send the records that a write could not store; retry without a time limit.

        Raises
        ------
        FatalError
            If the producer is unusable.
        HeadraceError
            If `give_up` was called before Kafka had confirmed everything.
        """
        for item in unstored.lost:
            self._report(item)
        letters = [_Letter.of(record, why) for record, why in unstored.rejected]
        letters += [_Letter(b"", b"", lost_headers(item)) for item in unstored.lost]
        self._attempts(self._deliver, letters)
        for item in unstored.lost:
            self._attempts(self._ledger.save, item)
        self._health.fine("dead_letters")

    def give_up(self) -> None:
        """Make a waiting `send` raise its error."""
        self._given_up.set()

    def close(self) -> None:
        """Close the connections, also after a fatal error of the producer."""
        # The next sink sends unconfirmed records again.
        with suppress(KafkaException):
            self._producer.flush(5.0)
        self._ledger.close()

    def _report(self, lost: LostRecords) -> None:
        _log.error(
            "records deleted before they were written",
            topic=lost.topic,
            partition=lost.partition,
            first_offset=lost.start,
            last_offset=lost.stop - 1,
            detail=lost.detail,
            next_step="keep the sink running, or raise HEADRACE_KAFKA_RETENTION; "
            "`headrace audit` lists all losses",
        )
        self._metrics.lost.inc(lost.offsets)
        self._lost.append(lost)
        self._health.note("lost", [item.as_dict() for item in self._lost[-_NAMED:]])

    def _deliver(self, letters: list[_Letter]) -> None:
        """Produce records and wait for Kafka's delivery reports.

        Confirmed records are removed from the list. A record without a report is sent again and
        can then exist twice; both copies have the same header ``source``.
        """
        confirmed: set[int] = set()
        failures: list[HeadraceError] = []
        self._produce(letters, confirmed, failures)
        self._fatal.check()
        for number in confirmed:
            reason = letters[number].reason
            if reason is not None:
                self._metrics.rejected.labels(reason).inc()
        letters[:] = [item for number, item in enumerate(letters) if number not in confirmed]
        if any(isinstance(error, MissingResourceError) for error in failures):
            msg = (
                f"the topic {self._topic} for dead letters does not exist, and {len(letters)} "
                "wait for it. `headrace provision` creates it"
            )
            raise MissingResourceError(msg)
        if failures:
            raise failures[0]
        if letters:
            msg = f"Kafka did not confirm records for {self._topic} in time"
            raise ServerTimeoutError(msg)

    def _produce(
        self, letters: list[_Letter], confirmed: set[int], failures: list[HeadraceError]
    ) -> None:
        def reporter(number: int) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, _: Message) -> None:
                if error is None:
                    confirmed.add(number)
                else:
                    failures.append(error_of(error, f"Write on topic {self._topic}"))

            return report

        try:
            for number, letter in enumerate(letters):
                self._producer.produce(
                    self._topic,
                    letter.value,
                    letter.key,
                    headers=letter.headers,
                    on_delivery=reporter(number),
                )
                self._producer.poll(0)
            self._producer.flush(_CONFIRM_SECONDS)
        except KafkaException as exc:
            failures.append(error_of(exc.args[0], f"Write on topic {self._topic}"))
        except BufferError as exc:
            msg = f"Kafka's client refuses a dead letter: {exc}"
            raise ServerTimeoutError(msg) from exc
