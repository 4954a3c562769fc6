"""The bridge's Kafka producers: one with batches, and one that sends records one by one."""

from __future__ import annotations

import time

import msgspec
from confluent_kafka import Producer

from headrace.storage.kafka import FatalErrors, Headers, Kafka, kafka_errors

__all__ = ["Outbox", "Outgoing"]


#: At 1,000 readings per second, this gives 50 batches per second instead of 200.
_LINGER_MS = 20
#: A missing topic is reported after this time, because it may have just been created.
_NEW_TOPIC_MS = 10_000
#: Time limit for requests in flight when records are discarded.
_DISCARD_SECONDS = 2.0


class Outgoing(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A record on its way to Kafka.

    It is kept until Kafka confirms it, because a delivery report does not return the headers. It
    has no timestamp, because Kafka stamps raw records and dead letters on arrival.

    Parameters
    ----------
    topic
        Kafka topic.
    value, key
        Content of the record.
    headers
        Headers, all of them text.
    """

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers


class Outbox:
    """The bridge's producers, polled together.

    Parameters
    ----------
    kafka
        The cluster.
    buffer_bytes
        Memory limit of the bridge. librdkafka's own limits are set above it.
    """

    def __init__(self, kafka: Kafka, buffer_bytes: int) -> None:
        self._kafka = kafka
        self._buffer_kilobytes = 2 * buffer_bytes // 1024
        self._fatal = FatalErrors()
        #: Batches records.
        self.batching = self._make(linger_ms=_LINGER_MS)
        self._isolated: Producer | None = None

    @property
    def isolated(self) -> Producer:
        """Sends each record in its own batch. Rarely needed, so created on first use."""
        if self._isolated is None:
            self._isolated = self._make(batch_num_messages=1, linger_ms=0)
        return self._isolated

    def poll(self, seconds: float) -> None:
        """Handle delivery reports; wait at most this long for one.

        Raises
        ------
        FatalError
            If a producer cannot continue. Nothing may be acknowledged afterwards.
        """
        with kafka_errors():
            # A producer that failed permanently raises from here.
            if self._isolated is not None:
                self._isolated.poll(0)
            self.batching.poll(seconds)
        self._fatal.check()

    def discard(self) -> None:
        """Discard all records that Kafka has not confirmed; create new producers.

        Waits briefly for requests that are already sent, so that their records reach Kafka.

        Raises
        ------
        FatalError
            If a producer cannot continue.
        """
        old = [self.batching, *([self._isolated] if self._isolated else [])]
        for producer in old:
            producer.purge(in_queue=True, in_flight=False, blocking=True)
        deadline = time.monotonic() + _DISCARD_SECONDS
        for producer in old:
            with kafka_errors():
                producer.flush(max(0.0, deadline - time.monotonic()))
            producer.purge(in_queue=True, in_flight=True, blocking=True)
            producer.poll(0)
        self.batching, self._isolated = self._make(linger_ms=_LINGER_MS), None

    def _make(self, **settings: int) -> Producer:
        return self._kafka.producer(
            # No time limit: a reading stays unacknowledged until Kafka confirms it.
            message_timeout_ms=0,
            queue_buffering_max_kbytes=self._buffer_kilobytes,
            queue_buffering_max_messages=100_000,
            topic_metadata_propagation_max_ms=_NEW_TOPIC_MS,
            error_cb=self._fatal,
            **settings,
        )
