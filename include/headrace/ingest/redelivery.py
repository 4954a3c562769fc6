"""Recognising what the broker sends again.

After a lost connection the broker repeats what was not acknowledged, with the flag DUP,
the same packet id and the same payload. What Kafka already holds of it must not go there
twice. While the bridge lives it remembers; after a restart it reads the newest records
of Kafka's partitions, which carry the bridge's name and the packet id.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import TopicPartition

from headrace.ingest.inflight import Flight, InFlight, Place
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES
from headrace.storage.kafka import Kafka, Record, kafka_errors
from headrace.storage.kafka_log import Offsets, end_offsets, newest, read_topic

__all__ = [
    "MEMORY",
    "Bookmarks",
    "Fingerprint",
    "RecentPackets",
    "digest_of",
    "recorded_packets",
]

#: So many of a bridge's newest messages are remembered. Packet ids come round after
#: 65,535, so it must be fewer; and more than can be unacknowledged at once.
MEMORY = 32_768
_PACKET_IDS = 65_536
_CALL_SECONDS = 10.0
#: Counts what Kafka has already.
_NOWHERE = InFlight(0)


def digest_of(payload: bytes) -> int:
    """Hash of as much of a payload as a dead letter keeps, for use within this process."""
    return hash(payload[:MAX_DEAD_LETTER_BYTES])


@dataclass(frozen=True, order=True)
class Fingerprint:
    """What tells a message that Kafka holds from others.

    Parameters
    ----------
    taken_ns
        When the bridge took it: unique and increasing per bridge.
    packet_id
        Its MQTT packet id.
    digest
        Hash of its payload, as far as it was kept.
    """

    taken_ns: int
    packet_id: int
    digest: int


class RecentPackets:
    """The bridge's newest messages by packet id.

    Of what is acknowledged only numbers are kept. Memory that is taken and given back a
    reading later is still in the processor's cache; what lies about for a round of ids
    is not.

    Parameters
    ----------
    known
        Messages that Kafka holds from before this bridge started.
    """

    def __init__(self, known: Iterable[Fingerprint] = ()) -> None:
        self._sequence = 0
        self._digests = array("q", bytes(8 * _PACKET_IDS))
        self.reset(known)

    def reset(self, known: Iterable[Fingerprint]) -> None:
        """Forget everything but these messages, which Kafka holds."""
        self.forget()
        for item in sorted(known):
            self._digests[item.packet_id] = item.digest
            self._sequences[item.packet_id] = self._sequence
            self._sequence += 1

    def remember(self, flight: Flight, payload: bytes) -> None:
        """Remember a message that was taken."""
        packet_id = flight.packet_id
        self._flights[packet_id] = flight
        self._digests[packet_id] = digest_of(payload)
        self._sequences[packet_id] = self._sequence
        self._sequence += 1

    def acknowledged(self, packet_ids: list[int]) -> None:
        """Note that messages are acknowledged. They may come again all the same."""
        for packet_id in packet_ids:
            self._flights[packet_id] = None

    def find(self, packet_id: int, payload: bytes) -> Flight | None:
        """Find the message that the broker is repeating, if it was taken already."""
        if self._digests[packet_id] != digest_of(payload):
            return None
        if self._sequence - self._sequences[packet_id] > MEMORY:
            # The same id and payload from a whole round of ids ago is another message.
            return None
        # What was acknowledged is in Kafka.
        return self._flights[packet_id] or Flight(packet_id, 0, _NOWHERE, done=True)

    def forget(self) -> None:
        """Forget everything: the broker has lost the session and counts ids anew."""
        self._flights: list[Flight | None] = [None] * _PACKET_IDS
        self._sequences = array("q", [self._sequence - MEMORY - 1]) * _PACKET_IDS


class Bookmarks:
    """Up to where, in each partition, a bridge's messages are acknowledged.

    Kept in Kafka, as the offsets of a consumer group that nobody joins, so that a bridge
    finds its own newest messages also among many newer ones of other bridges.

    Parameters
    ----------
    kafka
        The cluster.
    bridge
        Name of the bridge.
    """

    def __init__(self, kafka: Kafka, bridge: str) -> None:
        self._consumer = kafka.consumer(f"headrace-bookmarks-{bridge}")
        self._saved: dict[Place, int] = {}

    def save(self, acknowledged_to: dict[Place, int]) -> None:
        """Save what has moved. Does not wait for Kafka: an older bookmark is as good."""
        moved = [
            TopicPartition(topic, partition, offset)
            for (topic, partition), offset in acknowledged_to.items()
            if self._saved.get((topic, partition)) != offset
        ]
        if moved:
            self._consumer.commit(offsets=moved, asynchronous=True)
            self._saved = dict(acknowledged_to)
        self._consumer.poll(0)

    def start_of(self, topic: str) -> Offsets:
        """Where to begin to look for the bridge's newest `MEMORY` messages."""
        first, end = end_offsets(self._consumer, topic)
        asked = [TopicPartition(topic, partition) for partition in end]
        with kafka_errors():
            found = self._consumer.committed(asked, timeout=_CALL_SECONDS)
        start = newest(first, end, MEMORY)
        for item in found:
            if item.offset >= 0:
                start[item.partition] = min(start[item.partition], item.offset - MEMORY)
        return start

    def end_of(self, topic: str) -> Offsets:
        """One past the last offset of every partition of a topic."""
        return end_offsets(self._consumer, topic)[1]

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


class Starts(Protocol):
    """Says where to begin to read a topic."""

    def start_of(self, topic: str) -> Offsets:
        """First offset to read of each partition."""


def recorded_packets(
    kafka: Kafka, starts: Starts, topics: Iterable[str], bridge: str
) -> list[Fingerprint]:
    """Read which messages of a bridge Kafka holds, the newest `MEMORY` of them.

    Parameters
    ----------
    kafka
        The cluster.
    starts
        Where to begin to read.
    topics
        The topics that the bridge writes readings to.
    bridge
        Its name.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    name = bridge.encode()

    def fingerprints() -> Iterator[Fingerprint]:
        for topic in topics:
            start = starts.start_of(topic)
            for record in read_topic(kafka, topic, start, buffer_kilobytes=4 * 1024):
                fingerprint = _fingerprint(record, name)
                if fingerprint is not None:
                    yield fingerprint

    return heapq.nlargest(MEMORY, fingerprints())


def _fingerprint(record: Record, bridge: bytes) -> Fingerprint | None:
    headers = record.headers
    packet_id = headers.get("packet_id")
    taken = headers.get("taken_ns", headers.get("time_ns"))
    if headers.get("bridge") != bridge or packet_id is None or taken is None:
        return None
    if packet_id == b"0":
        # QoS 0 is never repeated.
        return None
    return Fingerprint(int(taken), int(packet_id), digest_of(record.value))
