"""Readings between the broker and Kafka: counted, and acknowledged in order."""

from __future__ import annotations

from collections import deque

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


class Flight:
    """A message on its way to Kafka.

    Attributes
    ----------
    packet_id
        Its MQTT packet id, 0 at QoS 0.
    digest
        Tells its payload from others with the same packet id.
    sequence
        Place among the messages that this bridge took.
    done
        Whether Kafka has it.
    place, offset
        Where in Kafka, for some of the messages.
    alone
        Whether it was sent in a batch of its own, because Kafka refused its batch.
    outgoing
        The record, until Kafka has it.
    """

    __slots__ = (
        "_owner",
        "alone",
        "digest",
        "done",
        "offset",
        "outgoing",
        "packet_id",
        "place",
        "sequence",
        "size",
    )

    def __init__(
        self, owner: InFlight, packet_id: int, digest: int, sequence: int, size: int
    ) -> None:
        self._owner = owner
        self.packet_id = packet_id
        self.digest = digest
        self.sequence = sequence
        self.size = size
        self.done = False
        self.place: Place | None = None
        self.offset = -1
        self.alone = False
        self.outgoing = _LANDED

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Take Kafka's delivery report. Runs inside the producer's ``poll``."""
        if error is None:
            self.done = True
            self.outgoing = _LANDED
            self._owner.landed(self)
            if not self.sequence % _NOTE_EVERY:
                self.place = (message.topic() or "", message.partition() or 0)
                self.offset = message.offset() or 0
        else:
            self._owner.undelivered.append((self, error))


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
        self.bytes = 0
        self.count = 0
        self.delivered = 0
        self.undelivered: deque[Undelivered] = deque()
        #: Up to where, in each partition, all messages are acknowledged.
        self.acknowledged_to: dict[Place, int] = {}

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken in."""
        return self.bytes >= self._limit or len(self._order) >= _MAX_READINGS

    @property
    def has_room(self) -> bool:
        """Whether so much has gone that it is worth taking in more."""
        return self.bytes < self._limit // 2 and len(self._order) < _MAX_READINGS // 2

    def took_off(self, packet_id: int, digest: int, sequence: int, payload_size: int) -> Flight:
        """Note a message that goes to Kafka, to be acknowledged after those before it."""
        size = 2 * payload_size + _OVERHEAD_BYTES
        flight = Flight(self, packet_id, digest, sequence, size)
        self.bytes += size
        self.count += 1
        if packet_id:
            self._order.append(flight)
        return flight

    def landed(self, flight: Flight) -> None:
        """Note that Kafka has a message."""
        self.bytes -= flight.size
        self.count -= 1
        self.delivered += 1

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

    def connection_lost(self) -> None:
        """Forget the order: the broker will send everything unacknowledged again."""
        self._order.clear()
