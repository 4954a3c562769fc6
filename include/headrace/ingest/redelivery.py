"""Recognising messages that the broker sends again.

After a lost connection the broker repeats every unacknowledged message, with the flag DUP,
the same packet id and the same payload. A message that Kafka already has must not be produced
again. While the bridge runs, it remembers its newest messages. After a restart it reads the
newest records of Kafka's partitions, which carry the bridge's name, the packet id and the
bridge's own sequence number. Clocks play no part in it.
"""

from __future__ import annotations

import heapq
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import TopicPartition

from headrace.ingest.devices import DeviceLimits
from headrace.ingest.inflight import InFlight, InFlightMessage, Place
from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.storage.kafka import Kafka, Record, kafka_errors
from headrace.storage.kafka_log import Offsets, end_offsets, newest, read_topic
from headrace.storage.records import SkippedRecords, own_records

__all__ = [
    "MEMORY",
    "Bookmarks",
    "Fingerprint",
    "RecentPackets",
    "digest_of",
    "fingerprint_of",
    "recorded_packets",
]

#: Number of a bridge's newest messages that it remembers: more than can be unacknowledged
#: at once, and fewer than 65,535, after which packet ids repeat.
MEMORY = 32_768
_PACKET_IDS = 65_536
_CALL_SECONDS = 10.0
#: Sequence numbers and stamps of our own records are below this.
_MAX_NUMBER = 9 * 10**18
_NUMBER = re.compile(rb"[0-9]{1,19}")
#: Counts of messages that Kafka already has; nobody reads them.
_UNCOUNTED = InFlight(0)


def digest_of(payload: bytes) -> int:
    """Hash of as much of a payload as a dead letter keeps, for use within this process."""
    return hash(payload[:MAX_DEAD_LETTER_BYTES])


@dataclass(frozen=True, order=True)
class Fingerprint:
    """Identifies a message that Kafka holds. Fingerprints sort by age, the oldest first.

    Parameters
    ----------
    sequence
        The bridge's own number of the message; 0 if an older version wrote the record.
    taken_ns
        Stamp of the message by the bridge's clock, which may have jumped.
    packet_id
        Its MQTT packet id.
    digest
        Hash of its payload, as far as it was kept.
    """

    sequence: int
    taken_ns: int
    packet_id: int
    digest: int


class RecentPackets:
    """The bridge's newest messages by packet id, numbered in their order.

    The numbers continue over restarts. A message at QoS 0, which is never repeated, has the
    number of the one before it.

    Of acknowledged messages only numbers are kept. An object that is freed soon after it was
    made is still in the processor's cache; one kept for a round of packet ids is not.

    Parameters
    ----------
    known
        Messages that Kafka holds from before this bridge started.

    Attributes
    ----------
    sequence
        Number of the newest message.
    newest
        The newest message read from Kafka by the last `reset`; `None` if there was none.
    """

    def __init__(self, known: Iterable[Fingerprint] = ()) -> None:
        self.sequence = 0
        self.newest: Fingerprint | None = None
        self._digests = array("q", bytes(8 * _PACKET_IDS))
        self.reset(known)

    def reset(self, known: Iterable[Fingerprint]) -> None:
        """Forget everything but these messages, which Kafka holds."""
        items = sorted(known)
        old = sum(item.sequence == 0 for item in items)
        self.newest = items[-1] if items else None
        if self.newest is not None:
            self.sequence = max(self.sequence, self.newest.sequence, old)
        self.forget()
        # Records of older versions have no numbers: they come before those that have.
        begin = items[old].sequence - old if old < len(items) else self.sequence - old + 1
        for position, item in enumerate(items[:old], begin):
            self._know(item, position)
        for item in items[old:]:
            self._know(item, item.sequence)

    def remember(self, message: InFlightMessage, payload: bytes) -> int:
        """Remember a new message, and return its number."""
        packet_id = message.packet_id
        self.sequence = sequence = self.sequence + 1
        self._messages[packet_id] = message
        self._digests[packet_id] = digest_of(payload)
        self._sequences[packet_id] = sequence
        return sequence

    def ignored(self, packet_id: int) -> None:
        """Note that a packet id was used by a message that is not remembered."""
        self.sequence += 1
        self._messages[packet_id] = None
        self._sequences[packet_id] = self.sequence - MEMORY - 1

    def acknowledged(self, packet_ids: list[int]) -> None:
        """Note that messages are acknowledged. The broker may send them again even so."""
        for packet_id in packet_ids:
            self._messages[packet_id] = None

    def find(self, packet_id: int, payload: bytes) -> InFlightMessage | None:
        """Find the message that the broker is repeating, if it was received before."""
        if self._digests[packet_id] != digest_of(payload):
            return None
        if self.sequence - self._sequences[packet_id] >= MEMORY:
            # The same id and payload from a whole round of ids ago is another message.
            return None
        # Kafka has every acknowledged message.
        known = self._messages[packet_id]
        return known or InFlightMessage(packet_id, 0, _UNCOUNTED, done=True)

    def sequence_of(self, packet_id: int) -> int:
        """Return the number of the newest message that had a packet id."""
        return self._sequences[packet_id]

    def forget(self) -> None:
        """Forget every message: the broker has lost the session and starts its ids anew."""
        self._messages: list[InFlightMessage | None] = [None] * _PACKET_IDS
        self._sequences = array("q", [self.sequence - MEMORY - 1]) * _PACKET_IDS

    def _know(self, item: Fingerprint, sequence: int) -> None:
        self._digests[item.packet_id] = item.digest
        self._sequences[item.packet_id] = sequence


class Bookmarks:
    """Offsets in each partition up to which a bridge's messages are acknowledged.

    Kept in Kafka as the offsets of a consumer group that nobody joins. With them a bridge
    finds its own newest messages even behind many newer ones of other bridges.

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
        """Save changed offsets without waiting for Kafka: an older bookmark works too."""
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
        """Where to begin to read so as to find the bridge's newest `MEMORY` messages."""
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
    kafka: Kafka,
    starts: Starts,
    topics: Iterable[str],
    bridge: str,
    *,
    devices: DeviceLimits | None = None,
    skipped: SkippedRecords | None = None,
) -> list[Fingerprint]:
    """Read which messages of a bridge Kafka holds, the newest `MEMORY` of them.

    Parameters
    ----------
    kafka
        The cluster.
    starts
        Where to begin to read.
    topics
        The topics that the bridge writes readings to, the raw topic first.
    bridge
        Its name.
    devices
        Told the keys of the raw records, if given: those devices are not new.
    skipped
        Counts the records that bear the bridge's name and are not its own, if given.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    name = bridge.encode()
    skipped = SkippedRecords() if skipped is None else skipped

    def parse(record: Record) -> Fingerprint | None:
        return fingerprint_of(record, name)

    def fingerprints() -> Iterator[Fingerprint]:
        for number, topic in enumerate(topics):
            records = read_topic(kafka, topic, starts.start_of(topic), buffer_kilobytes=4 * 1024)
            if number == 0 and devices is not None:
                records = _recall_devices(records, devices)
            for fingerprint in own_records(records, parse, skipped):
                if fingerprint is not None:
                    yield fingerprint

    return heapq.nlargest(MEMORY, fingerprints())


def _recall_devices(records: Iterable[Record], devices: DeviceLimits) -> Iterator[Record]:
    """Pass records on, and accept their devices."""
    for record in records:
        devices.recall(record.key)
        yield record


def fingerprint_of(record: Record, bridge: bytes) -> Fingerprint | None:
    """Fingerprint of a record; `None` if it is another bridge's, or is never sent again.

    Raises
    ------
    ForeignRecordError
        If the record bears the bridge's name and is not its own.
    """
    headers = record.headers
    packet_id = headers.get("packet_id")
    taken = headers.get("taken_ns", headers.get("time_ns"))
    if headers.get("bridge") != bridge or packet_id is None or taken is None:
        return None
    if packet_id == b"0" or "source" in headers:
        # A message at QoS 0 is never sent again. A dead letter with a source is the sink's.
        return None
    number = _number("packet_id", packet_id)
    if not 0 < number < _PACKET_IDS:
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"packet_id is {number}")
    sequence = _number("seq", headers["seq"]) if "seq" in headers else 0
    return Fingerprint(sequence, _number("taken_ns", taken), number, digest_of(record.value))


def _number(name: str, text: bytes) -> int:
    """Read a header that holds a number."""
    if not _NUMBER.fullmatch(text) or int(text) >= _MAX_NUMBER:
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"{name} is {text[:50]!r}")
    return int(text)
