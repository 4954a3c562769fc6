"""Recognising messages that the broker sends again.

After a lost connection the broker repeats every unacknowledged message, with the flag DUP,
the same packet id and the same payload. A message that Kafka already has must not be produced
again. While the bridge runs, it remembers its newest messages. After a restart it reads the
newest records of Kafka's partitions, which carry the bridge's name, the packet id and the
bridge's own sequence number. Clocks play no part in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from headrace.ingest.fingerprints import PACKET_IDS, Fingerprint, digest_of
from headrace.ingest.inflight import InFlight, InFlightMessage

__all__ = ["MEMORY", "RecentPackets"]

#: Number of a bridge's newest messages that it remembers: more than can be unacknowledged
#: at once, and fewer than 65,535, after which packet ids repeat.
MEMORY = 32_768
#: Counts of messages that Kafka already has. They are never read.
_UNCOUNTED = InFlight(0)


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
        self._digests = array("q", bytes(8 * PACKET_IDS))
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
        """Drop all messages: the broker has lost the session and restarts its packet ids."""
        self._messages: list[InFlightMessage | None] = [None] * PACKET_IDS
        self._sequences = array("q", [self.sequence - MEMORY - 1]) * PACKET_IDS

    def _know(self, item: Fingerprint, sequence: int) -> None:
        self._digests[item.packet_id] = item.digest
        self._sequences[item.packet_id] = sequence
