"""Publishes records in one Kafka transaction: all of them or none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headrace.errors import (
    FatalError,
    HeadraceError,
    PermanentError,
    ServerUnavailableError,
)
from headrace.storage.kafka import Headers, Kafka, error_of
from headrace.storage.kafka_errors import refusal_of

__all__ = ["OutRecord", "OutRecordWithHeaders", "Publisher"]

#: Topic, key, value.
OutRecord: TypeAlias = tuple[str, bytes, bytes]
#: Topic, key, value, headers.
OutRecordWithHeaders: TypeAlias = tuple[str, bytes, bytes, Headers]

_Report: TypeAlias = Callable[[KafkaError | None, Message], None]

#: Kafka aborts an abandoned transaction after this time. Until then, readers wait.
_TRANSACTION_LIMIT = timedelta(seconds=15)
_CALL_SECONDS = 20.0


class Publisher:
    """The only publisher of an installation.

    Entering it fences every other publisher with the same name, whether that one still runs or
    died during a transaction.

    Parameters
    ----------
    kafka
        The cluster.
    name
        The ``transactional.id``.
    """

    def __init__(self, kafka: Kafka, name: str) -> None:
        self._name = name
        self._producer: Producer = kafka.producer(
            transactional_id=name,
            transaction_timeout_ms=_TRANSACTION_LIMIT // timedelta(milliseconds=1),
            linger_ms=5,
            queue_buffering_max_messages=200_000,
            queue_buffering_max_kbytes=128 * 1024,
        )

    def __enter__(self) -> Self:
        acl = f"Write on transactional id {self._name}"
        try:
            # Without an open connection, librdkafka waits half a second before it
            # retries to find its coordinator.
            self._producer.list_topics(timeout=_CALL_SECONDS)
            self._producer.init_transactions(_CALL_SECONDS)
        except KafkaException as exc:
            # librdkafka calls a missing right fatal, too.
            problem = refusal_of(exc.args[0], acl) or error_of(exc.args[0], acl)
            if isinstance(problem, FatalError):
                # Each attempt creates a new producer, so a fenced one can be retried.
                msg = f"can't begin to publish: {problem}"
                raise ServerUnavailableError(msg) from exc
            raise problem from exc
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # No transaction is open, because `publish` has committed or aborted it.
        self._producer.purge()
        # close() of a fenced producer closes it and raises, which would hide the error that
        # reports the fencing.
        with suppress(SystemError):
            self._producer.close()

    def publish(self, records: Sequence[OutRecord], not_before: datetime) -> None:
        """Publish records so that `read_committed` consumers see all of them or none.

        Parameters
        ----------
        records
            The records.
        not_before
            Earliest timestamp of the records, even if the clock of this host is slow, because
            readers start here.

        Raises
        ------
        TransientError
            If Kafka is unavailable, or another publisher has taken over.
        PermanentError
            If Kafka refuses the records permanently.
        """
        stamp = max(time.time_ns() // 1_000_000, int(not_before.timestamp() * 1000))
        self._commit([(*record, []) for record in records], stamp)

    def publish_with_headers(self, records: Sequence[OutRecordWithHeaders]) -> None:
        """Publish records as `publish` does, with headers and the current time.

        Raises
        ------
        TransientError, PermanentError
            As `publish`. After either, no record was published.
        """
        self._commit(records, time.time_ns() // 1_000_000)

    def _commit(self, records: Sequence[OutRecordWithHeaders], stamp: int) -> None:
        if not records:
            return
        failures: list[HeadraceError] = []

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error_of(error, f"Write on topic {message.topic()}"))

        try:
            self._producer.begin_transaction()
            for record in records:
                self._produce(record, stamp, report)
            self._producer.commit_transaction(_CALL_SECONDS)
        except KafkaException as exc:
            with suppress(KafkaException):
                self._producer.abort_transaction(_CALL_SECONDS)
            # A delivery report is more specific than the failed commit.
            cause = (
                failures[0]
                if failures
                else error_of(exc.args[0], f"Write on transactional id {self._name}")
            )
            if isinstance(cause, PermanentError):
                raise cause from exc
            msg = f"nothing was published: {cause}"
            raise ServerUnavailableError(msg) from exc
        except BaseException:
            # After an interrupt, readers would otherwise wait until Kafka aborts the transaction.
            with suppress(KafkaException):
                self._producer.abort_transaction(_CALL_SECONDS)
            raise

    def _produce(self, record: OutRecordWithHeaders, stamp: int, report: _Report) -> None:
        topic, key, value, headers = record
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=headers, on_delivery=report, timestamp=stamp
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return
