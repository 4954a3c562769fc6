"""The bridge's producers: one for all readings, and one for those that are sent alone."""

from __future__ import annotations

import msgspec
from confluent_kafka import Producer

from headrace.storage.kafka import Headers, Kafka

__all__ = ["Outbox", "Outgoing"]


#: What a fleet of 1,000 sends in a second is fifty batches for Kafka, then, not two hundred.
_LINGER_MS = 20


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
        if self._alone is not None:
            self._alone.poll(0)
        self.usual.poll(seconds)

    def _make(self, **settings: int) -> Producer:
        return self._kafka.producer(
            # Never given up: a reading stays unacknowledged until Kafka has it.
            message_timeout_ms=0,
            queue_buffering_max_kbytes=self._buffer_kilobytes,
            queue_buffering_max_messages=100_000,
            **settings,
        )
