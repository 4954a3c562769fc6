"""The bridge's producers: one for all readings, and one for those that are sent alone."""

from __future__ import annotations

import time

import msgspec
from confluent_kafka import Producer

from headrace.storage.kafka import Headers, Kafka, kafka_errors

__all__ = ["Outbox", "Outgoing"]


#: What a fleet of 1,000 sends in a second is fifty batches for Kafka, then, not two hundred.
_LINGER_MS = 20
#: Requests on the wire may take this long before they are given up.
_DISCARD_SECONDS = 2.0


class Outgoing(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A record on its way to Kafka.

    Kept until Kafka has it, for a delivery report does not bring the headers back.

    Parameters
    ----------
    topic
        Where it goes.
    value, key
        What it holds.
    timestamp
        Milliseconds since the epoch.
    headers
        All of them readable text.
    """

    topic: str
    value: bytes | None
    key: bytes | None
    timestamp: int
    headers: Headers


class Outbox:
    """Kafka's producers, polled together.

    Parameters
    ----------
    kafka
        The cluster.
    buffer_bytes
        What the bridge holds at most; librdkafka's own limits are kept above it.
    """

    def __init__(self, kafka: Kafka, buffer_bytes: int) -> None:
        self._kafka = kafka
        self._buffer_kilobytes = 2 * buffer_bytes // 1024
        #: Batches records.
        self.usual = self._make(linger_ms=_LINGER_MS)
        self._alone: Producer | None = None

    @property
    def alone(self) -> Producer:
        """Sends each record in a batch of its own. Rarely needed, so made only then."""
        if self._alone is None:
            self._alone = self._make(batch_num_messages=1, linger_ms=0)
        return self._alone

    def poll(self, seconds: float) -> None:
        """Serve delivery reports, and wait for one that long at most."""
        with kafka_errors():
            # A producer that failed for good raises from here.
            if self._alone is not None:
                self._alone.poll(0)
            self.usual.poll(seconds)

    def discard(self) -> None:
        """Drop what Kafka has not confirmed, and begin anew.

        Requests that are on the wire get a moment: what they carried is in Kafka then.
        """
        old = [self.usual, *([self._alone] if self._alone else [])]
        for producer in old:
            producer.purge(in_queue=True, in_flight=False, blocking=True)
        deadline = time.monotonic() + _DISCARD_SECONDS
        for producer in old:
            producer.flush(max(0.0, deadline - time.monotonic()))
            producer.purge(in_queue=True, in_flight=True, blocking=True)
            producer.poll(0)
        self.usual, self._alone = self._make(linger_ms=_LINGER_MS), None

    def _make(self, **settings: int) -> Producer:
        return self._kafka.producer(
            # Never given up: a reading stays unacknowledged until Kafka has it.
            message_timeout_ms=0,
            queue_buffering_max_kbytes=self._buffer_kilobytes,
            queue_buffering_max_messages=100_000,
            **settings,
        )
