"""Readings between the broker and Kafka: counted, and acknowledged in order."""

from __future__ import annotations

from collections import deque

import msgspec
from confluent_kafka import KafkaError, Message

from headrace.ingest.outbox import Outgoing

__all__ = ["Flight", "InFlight", "Place", "Undelivered"]

#: What a reading takes besides its payload, which both librdkafka and we hold, in bytes.
_OVERHEAD_BYTES = 1024
#: More than this many in flight, and packet ids could come round among them (65,535).
_MAX_READINGS = 16_384

#: A reading that Kafka did not take, and why.
Undelivered = tuple["Flight", KafkaError]
#: What has landed need not be kept.
_LANDED = Outgoing("", None, None, 0, [])
#: A topic's partition.
Place = tuple[str, int]
#: Every so many messages the place in Kafka is noted: asking for it costs time.
_NOTE_EVERY = 64


class Flight(msgspec.Struct, eq=False, gc=False):
    """A message on its way to Kafka.

    Attributes
    ----------
    packet_id
        Its MQTT packet id, 0 at QoS 0.
    size
        Bytes that it takes until Kafka has it.
    owner
        Where it is counted.
    done
        Whether Kafka has it.
    place, offset
        Where in Kafka, for some of the messages.
    alone
        Whether it is sent in a batch of its own, because Kafka refused its batch.
    outgoing
        The record, until Kafka has it.
    """

    packet_id: int
    size: int
    owner: InFlight
    done: bool = False
    place: Place | None = None
    offset: int = -1
    alone: bool = False
    outgoing: Outgoing = _LANDED

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Take Kafka's delivery report. Runs inside the producer's ``poll``."""
        owner = self.owner
        if error is not None:
            owner.undelivered.append((self, error))
            return
        self.done = True
        self.outgoing = _LANDED
        owner.bytes -= self.size
        owner.delivered += 1
        if not owner.delivered % _NOTE_EVERY:
            self.place = (message.topic() or "", message.partition() or 0)
            self.offset = message.offset() or 0


class InFlight:
    """What was taken from the broker and is not acknowledged yet.

    Parameters
    ----------
    limit_bytes
        Above this the bridge takes nothing more in.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._order: deque[Flight] = deque()
        self._taken = 0
        self.bytes = 0
        self.delivered = 0
        self.undelivered: deque[Undelivered] = deque()
        #: Up to where, in each partition, all messages are acknowledged.
        self.acknowledged_to: dict[Place, int] = {}

    @property
    def count(self) -> int:
        """Messages that Kafka does not have yet."""
        return self._taken - self.delivered

    @property
    def unacknowledged(self) -> int:
        """Messages of this connection that are not acknowledged yet."""
        return len(self._order)

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken in."""
        return self.bytes >= self._limit or len(self._order) >= _MAX_READINGS

    @property
    def has_room(self) -> bool:
        """Whether so much has gone that it is worth taking in more."""
        return self.bytes < self._limit // 2 and len(self._order) < _MAX_READINGS // 2

    def took_off(self, packet_id: int, payload_size: int) -> Flight:
        """Note a message that goes to Kafka, to be acknowledged after those before it."""
        size = 2 * payload_size + _OVERHEAD_BYTES
        flight = Flight(packet_id, size, self)
        self.bytes += size
        self._taken += 1
        if packet_id:
            self._order.append(flight)
        return flight

    def came_again(self, flight: Flight) -> None:
        """Note a message that the broker sent again: acknowledged anew, not produced."""
        self._order.append(flight)

    def acknowledgeable(self) -> list[int]:
        """Packet ids that may be acknowledged now, in the order the broker sent them.

        MQTT wants acknowledgements in that order, so a message waits for those before it.
        """
        order = self._order
        ready = []
        while order and order[0].done:
            flight = order.popleft()
            ready.append(flight.packet_id)
            if flight.place is not None:
                known = self.acknowledged_to.get(flight.place, 0)
                self.acknowledged_to[flight.place] = max(known, flight.offset)
        return ready

    def discard(self) -> None:
        """Forget everything that is on its way; its delivery reports must not come any more."""
        self._order.clear()
        self.undelivered.clear()
        self._taken = self.delivered
        self.bytes = 0

    def connection_lost(self) -> None:
        """Forget the order: the broker will send everything unacknowledged again."""
        self._order.clear()
