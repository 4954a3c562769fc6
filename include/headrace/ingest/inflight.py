"""Counts the messages between broker and Kafka and acknowledges them in order."""

from __future__ import annotations

from collections import deque

import msgspec
from confluent_kafka import KafkaError, Message

from headrace.ingest.outbox import Outgoing

__all__ = ["InFlight", "InFlightMessage", "Place", "Undelivered"]

#: Memory of a message besides payload and topic, in bytes. Both librdkafka and the bridge keep
#: payload and topic.
_OVERHEAD_BYTES = 1024
#: Maximum number of messages in flight. Packet ids wrap at 65,535 and must be unique.
_MAX_MESSAGES = 16_384

#: A message that Kafka did not accept, and the reason.
Undelivered = tuple["InFlightMessage", KafkaError]
#: Replaces the record of a delivered message, to free its memory.
_DELIVERED = Outgoing("", None, None, [])
#: A topic's partition.
Place = tuple[str, int]
#: Partition and offset are stored for one message in this many, because reading them is slow.
_NOTE_EVERY = 64


class InFlightMessage(msgspec.Struct, eq=False, gc=False):
    """A message from the broker.

    Attributes
    ----------
    packet_id
        MQTT packet id, 0 at QoS 0.
    size
        Memory of the message until Kafka confirms it, in bytes.
    counts
        Counters that its delivery changes.
    done
        Whether Kafka has confirmed it, or it needs no record.
    place, offset
        Partition and offset in Kafka, stored for some messages.
    isolated
        Whether it is sent in its own batch, because Kafka refused an earlier batch.
    outgoing
        Record of the message until Kafka confirms it.
    """

    packet_id: int
    size: int
    counts: InFlight
    done: bool = False
    place: Place | None = None
    offset: int = -1
    isolated: bool = False
    outgoing: Outgoing = _DELIVERED

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Handle Kafka's delivery report. Runs inside the producer's ``poll``."""
        counts = self.counts
        if error is not None:
            counts.undelivered.append((self, error))
            return
        self.done = True
        self.outgoing = _DELIVERED
        counts.bytes -= self.size
        counts.delivered += 1
        if not counts.delivered % _NOTE_EVERY:
            self.place = (message.topic() or "", message.partition() or 0)
            self.offset = message.offset() or 0


class InFlight:
    """Received messages that are not acknowledged yet.

    Parameters
    ----------
    limit_bytes
        Memory limit in bytes at which the bridge stops receiving.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._order: deque[InFlightMessage] = deque()
        self._added = 0
        self.bytes = 0
        self.delivered = 0
        self.undelivered: deque[Undelivered] = deque()
        #: Packet ids that were not acknowledged when the connection ended.
        self.unanswered: set[int] = set()
        #: Offset, by partition, up to which all messages are acknowledged.
        self.acknowledged_to: dict[Place, int] = {}

    @property
    def count(self) -> int:
        """Number of messages that Kafka has not confirmed."""
        return self._added - self.delivered

    @property
    def unacknowledged(self) -> int:
        """Number of messages of this connection that are not acknowledged."""
        return len(self._order)

    @property
    def full(self) -> bool:
        """Whether the bridge must stop receiving."""
        return self.bytes >= self._limit or len(self._order) >= _MAX_MESSAGES

    @property
    def has_room(self) -> bool:
        """Whether enough was delivered to start receiving again."""
        return self.bytes < self._limit // 2 and len(self._order) < _MAX_MESSAGES // 2

    def add(self, packet_id: int, content_size: int) -> InFlightMessage:
        """Add a message for Kafka. It is acknowledged after the messages before it.

        Parameters
        ----------
        packet_id
            MQTT packet id, 0 at QoS 0.
        content_size
            Length of payload and topic, in bytes.
        """
        size = 2 * content_size + _OVERHEAD_BYTES
        message = InFlightMessage(packet_id, size, self)
        self.bytes += size
        self._added += 1
        if packet_id:
            self._order.append(message)
        return message

    def add_ignored(self, packet_id: int) -> None:
        """Add a message without a record, which is only acknowledged, in order."""
        if packet_id:
            self._order.append(InFlightMessage(packet_id, 0, self, done=True))

    def add_redelivered(self, message: InFlightMessage) -> None:
        """Add a redelivered message, which is acknowledged again but not produced."""
        self._order.append(message)

    def acknowledgeable(self) -> list[int]:
        """Return the packet ids to acknowledge now, in the broker's order.

        MQTT requires that order, so a message waits for those before it.
        """
        order = self._order
        ready = []
        while order and order[0].done:
            message = order.popleft()
            ready.append(message.packet_id)
            if message.place is not None:
                known = self.acknowledged_to.get(message.place, 0)
                self.acknowledged_to[message.place] = max(known, message.offset)
        return ready

    def discard(self) -> None:
        """Discard all messages in flight. No delivery report may arrive afterwards."""
        self._order.clear()
        self.unanswered.clear()
        self.undelivered.clear()
        self._added = self.delivered
        self.bytes = 0

    def connection_lost(self) -> None:
        """Reset the order, because the broker redelivers everything unacknowledged."""
        self.unanswered |= {message.packet_id for message in self._order}
        self._order.clear()
