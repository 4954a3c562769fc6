"""Recognises redelivered messages.

After a lost connection, the broker redelivers every unacknowledged message with the flag DUP, the
same packet id and the same payload. A message that is already in Kafka must not be produced again.
A running bridge keeps its newest messages in memory. After a restart it reads its newest records
from Kafka, which contain the bridge's id, the packet id and a sequence number. Clocks are not
used.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from headrace.ingest.fingerprints import PACKET_IDS, Fingerprint, digest_of
from headrace.ingest.inflight import InFlight, InFlightMessage

__all__ = ["MEMORY", "RecentPackets"]

#: Number of newest messages that a bridge keeps: more than can be unacknowledged at once, and
#: fewer than 65,535, after which packet ids repeat.
MEMORY = 32_768
#: Counts of messages that Kafka already has. They are never read.
_UNCOUNTED = InFlight(0)


class RecentPackets:
    """The bridge's newest messages by packet id, numbered in order.

    The numbers continue after restarts. A message at QoS 0, which is never redelivered, has the
    number of the message before it.

    For acknowledged messages only numbers are kept. Objects that are freed early are still in the
    processor's cache; objects kept for a cycle of packet ids are not.

    Parameters
    ----------
    known
        Messages in Kafka from before the start of this bridge.

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
        self._digests = array("q", bytes(8 * PACKET_IDS))
        self.reset(known)

    def reset(self, known: Iterable[Fingerprint]) -> None:
        """Replace all messages by these, which are in Kafka."""
        items = sorted(known)
        old = sum(item.sequence == 0 for item in items)
        self.newest = items[-1] if items else None
        if self.newest is not None:
            self.sequence = max(self.sequence, self.newest.sequence, old)
        self.forget()
        # Records of older versions have no numbers and come first.
        begin = items[old].sequence - old if old < len(items) else self.sequence - old + 1
        for position, item in enumerate(items[:old], begin):
            self._know(item, position)
        for item in items[old:]:
            self._know(item, item.sequence)

    def remember(self, message: InFlightMessage, payload: bytes) -> int:
        """Store a new message; return its number."""
        packet_id = message.packet_id
        self.sequence = sequence = self.sequence + 1
        self._messages[packet_id] = message
        self._digests[packet_id] = digest_of(payload)
        self._sequences[packet_id] = sequence
        return sequence

    def ignored(self, packet_id: int) -> None:
        """Record that a message which is not stored used a packet id."""
        self.sequence += 1
        self._messages[packet_id] = None
        self._sequences[packet_id] = self.sequence - MEMORY - 1

    def acknowledged(self, packet_ids: list[int]) -> None:
        """Record that messages are acknowledged. The broker can still redeliver them."""
        for packet_id in packet_ids:
            self._messages[packet_id] = None

    def find(self, packet_id: int, payload: bytes) -> InFlightMessage | None:
        """Find the earlier copy of a redelivered message."""
        if self._digests[packet_id] != digest_of(payload):
            return None
        if self.sequence - self._sequences[packet_id] >= MEMORY:
            # A message with the same id and payload a full cycle of ids ago is another message.
            return None
        # All acknowledged messages are in Kafka.
        known = self._messages[packet_id]
        return known or InFlightMessage(packet_id, 0, _UNCOUNTED, done=True)

    def sequence_of(self, packet_id: int) -> int:
        """Return the number of the newest message that had a packet id."""
        return self._sequences[packet_id]

    def forget(self) -> None:
        """Drop all messages: the broker has lost the session and restarts its packet ids."""
        self._messages: list[InFlightMessage | None] = [None] * PACKET_IDS
        self._sequences = array("q", [self.sequence - MEMORY - 1]) * PACKET_IDS

    def _know(self, item: Fingerprint, sequence: int) -> None:
        self._digests[item.packet_id] = item.digest
        self._sequences[item.packet_id] = sequence
