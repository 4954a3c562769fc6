"""A socket wrapper that takes PUBLISH packets out of the stream before paho reads it.

paho makes three system calls for each packet and builds an object with a dozen fields,
which is most of the cost of receiving a short reading. This module reads the socket in
large pieces and turns PUBLISH packets into plain tuples. paho gets all other packets and
manages the session: connect, subscribe, ping, disconnect.

Memory is bounded for packets of any length. Properties are skipped on arrival, long payloads
are truncated, and parts of control packets that paho does not need are removed.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import cast

from headrace.errors import ServerUnavailableError
from headrace.models.deadletter import Oversized
from headrace.storage.mqtt_packets import (
    DUP,
    MALFORMED_TOPIC,
    QOS,
    RETAIN,
    MalformedPacketError,
    MalformedPackets,
    Publish,
    condense,
    publish_head,
    variable_length,
)
from headrace.storage.mqtt_tls import is_tls_alert

__all__ = ["DUP", "MALFORMED_TOPIC", "QOS", "RETAIN", "Publish", "PublishStream"]

_PUBLISH = 0x30
_TYPE = 0xF0
_QOS_1, _QOS_2 = 0x02, 0x04
#: First byte, two bytes of length, and the length of the topic. Most packets of a fleet share
#: these bytes and therefore their layout.
_HEAD_BYTES = 5
_MAX_SHAPES = 4096
#: First two bytes of a PUBACK and of a PUBREC. Only the packet id follows: success.
_PUBACK, _PUBREC = 0x4002, 0x5002
_CONNACK = 0x20
_READ_BYTES = 256 * 1024
#: A packet whose properties and payload exceed this plus the longest payload is read in
#: pieces. It must be more than topic, packet id and the length of the properties can take.
_HEADER_BYTES = 128 * 1024


@dataclass(slots=True)
class _LongPublish:
    """A PUBLISH that is read in pieces.

    Parameters
    ----------
    flags, packet_id, topic
        As in `Publish`.
    wanted
        How much of the payload is kept.
    size
        Length of the payload.
    """

    flags: int
    packet_id: int
    topic: bytes
    wanted: int
    size: int
    payload: bytearray = field(default_factory=bytearray)


class PublishStream:
    """A socket that separates PUBLISH packets from the packets for paho.

    It replaces paho's socket. The loop calls `fill` when the socket is readable, `take`
    to get the published messages, and `flush` when the socket is writable.

    Parameters
    ----------
    sock
        The connected socket, TLS or not. It is made non-blocking by paho.
    keep_bytes
        Longer payloads are truncated to an `Oversized`.
    malformed
        Decides what happens with malformed packets; shared by the streams of a session.

    Attributes
    ----------
    unread_bytes
        Number of bytes that arrived since the last `take`.
    first_byte
        The first byte that arrived; `None` before it does.
    alert
        Reason of the broker for ending the TLS connection, if known.
    """

    def __init__(
        self, sock: socket.socket, keep_bytes: int, malformed: MalformedPackets | None = None
    ) -> None:
        self._sock = sock
        self._keep_bytes = keep_bytes
        self._packet_limit = keep_bytes + _HEADER_BYTES
        self._rest = b""
        self._skip = 0
        self._long: _LongPublish | None = None
        self._malformed = malformed or MalformedPackets()
        self._exactly_once: set[int] = set()
        self._published: list[Publish] = []
        #: By the first bytes of a packet at QoS 1: where its topic begins and ends, and how
        #: long the packet is.
        self._shapes: dict[bytes, tuple[int, int, int]] = {}
        self._control = bytearray()
        self._unsent = bytearray()
        self._ended = False
        self.unread_bytes = 0
        self.first_byte: int | None = None
        self.alert: ssl.SSLError | None = None

    # Called by paho

    def recv(self, count: int) -> bytes:
        """Give paho the next bytes of packets that are not PUBLISH."""
        if self._control:
            data = bytes(self._control[:count])
            del self._control[:count]
            return data
        if self._ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        """Queue a packet from paho. It is sent whole, after the queued ones."""
        self._unsent += data
        self.flush()
        return len(data)

    def fileno(self) -> int:
        """Descriptor of the socket, for select."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own signature
        """Set whether the socket blocks."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    # Called by the loop

    @property
    def has_control(self) -> bool:
        """Return whether paho has data to read or the stream has ended."""
        return bool(self._control) or self._ended

    @property
    def speaks_mqtt(self) -> bool:
        """Whether the first packet was a CONNACK."""
        return self.first_byte == _CONNACK

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._unsent)

    def fill(self) -> None:
        """Read up to 256 KiB of arrived data and separate it into packets.

        Raises
        ------
        ServerUnavailableError
            If a malformed packet ends the connection.
        """
        try:
            data = self._sock.recv(_READ_BYTES)
            # TLS buffers decrypted bytes that select does not see.
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                data += self._sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as exc:
            # paho notices the end of the stream and closes the connection.
            self._note_alert(exc)
            data = b""
        if not data:
            self._ended = True
            return
        self.unread_bytes += len(data)
        if self.first_byte is None:
            self.first_byte = data[0]
        try:
            self._cut(self._rest + data if self._rest else data)
        except MalformedPacketError as exc:
            msg = f"the MQTT broker sent a malformed packet: {exc}"
            raise ServerUnavailableError(msg) from exc

    def take(self) -> list[Publish]:
        """Return the PUBLISH packets that have arrived, in order."""
        self.unread_bytes = 0
        published, self._published = self._published, []
        return published

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Acknowledge packet ids, in that order, in one write: a PUBACK, at QoS 2 a PUBREC."""
        numbers = [_PUBACK, 0] * len(packet_ids)
        if self._exactly_once:
            # No subscription has QoS 2. A broker that sends it anyway repeats it until it gets
            # this answer. paho answers the PUBREL.
            numbers[::2] = [
                _PUBREC if item in self._exactly_once else _PUBACK for item in packet_ids
            ]
            self._exactly_once.difference_update(packet_ids)
        numbers[1::2] = packet_ids
        self._unsent += struct.pack(f">{len(numbers)}H", *numbers)
        self.flush()

    def flush(self) -> None:
        """Send queued bytes, as many as the socket accepts."""
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as exc:
            self._note_alert(exc)
            if self.first_byte is None and isinstance(self._sock, ssl.SSLSocket):
                # The broker may have said why, just before it closed.
                self.fill()
            raise

    def _note_alert(self, exc: OSError) -> None:
        if is_tls_alert(exc):
            self.alert = cast("ssl.SSLError", exc)

    def _cut(self, data: bytes) -> None:
        end = len(data)
        position = self._resume(data) if self._skip or self._long is not None else 0
        publish = self._published.append
        while end - position >= 2:  # noqa: PLR2004
            shape = self._shapes.get(data[position : position + _HEAD_BYTES])
            if shape is not None:
                topic, behind, size = shape
                stop = position + size
                topic += position
                behind += position
                # Not if it has properties.
                if stop <= end and not data[behind + 2]:
                    packet_id = data[behind] << 8 | data[behind + 1]
                    publish((_QOS_1, packet_id, data[topic:behind], data[behind + 3 : stop]))
                    position = stop
                    continue
            stop = self._cut_one(data, position)
            if stop == position:
                break
            position = stop
        self._rest = data[position:]

    def _cut_one(self, data: bytes, position: int) -> int:
        """Separate one packet of any kind.

        Returns
        -------
        int
            Where the next one begins; `position` if this one has not arrived whole.
        """
        end = len(data)
        first = data[position]
        try:
            length, body = variable_length(data, position + 1)
        except IndexError:
            return position
        stop = body + length
        available = body + min(length, self._packet_limit)
        if available > end:
            return position
        if first & _TYPE != _PUBLISH:
            self._control += condense(first, data[body:available], complete=available == stop)
            return self._skip_to(stop, end)
        try:
            packet_id, topic, start = publish_head(data, first, body, stop)
        except MalformedPacketError as exc:
            self._set_aside(data[body:available], first, length, exc)
            return self._skip_to(stop, end)
        if first & QOS == _QOS_2:
            self._exactly_once.add(packet_id)
        size = stop - start
        if available < stop:
            wanted = min(size, self._keep_bytes)
            self._long = _LongPublish(first & 0x0F, packet_id, topic, wanted, size)
            self._skip = start - position
            return position + self._resume(data[position:])
        payload = data[start:stop]
        if size > self._keep_bytes:
            payload = _oversized(payload[: self._keep_bytes], size)
        self._published.append((first & 0x0F, packet_id, topic, payload))
        if first == _PUBLISH | _QOS_1 and body <= position + 3:
            self._learn(data, position, body, stop)
        return stop

    def _resume(self, data: bytes) -> int:
        """Continue with a packet that is skipped or read in pieces; return its new position."""
        position = self._skip_to(self._skip, len(data))
        long = self._long
        if long is None or self._skip:
            return position
        piece = data[position : position + long.wanted - len(long.payload)]
        long.payload += piece
        position += len(piece)
        if len(long.payload) < long.wanted:
            return position
        payload = bytes(long.payload)
        if long.size > long.wanted:
            payload = _oversized(payload, long.size)
        self._published.append((long.flags, long.packet_id, long.topic, payload))
        self._long = None
        return self._skip_to(position + long.size - long.wanted, len(data))

    def _skip_to(self, stop: int, end: int) -> int:
        """Skip to a position that can be past the end of the data; return the new position."""
        self._skip = max(0, stop - end)
        return min(stop, end)

    def _set_aside(self, packet: bytes, first: int, size: int, exc: MalformedPacketError) -> None:
        """Pass a malformed packet on, or end the connection."""
        if not self._malformed.set_aside(packet, first, exc):
            return
        payload = packet[: self._keep_bytes]
        if size > len(payload):
            payload = _oversized(payload, size)
        self._published.append((first & 0x0F, exc.packet_id, MALFORMED_TOPIC, payload))

    def _learn(self, data: bytes, position: int, body: int, stop: int) -> None:
        """Store the layout of a packet for packets that begin with the same bytes."""
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        topic = body + 2 - position
        behind = topic + (data[body] << 8 | data[body + 1])
        self._shapes[data[position : position + _HEAD_BYTES]] = topic, behind, stop - position


def _oversized(payload: bytes, size: int) -> Oversized:
    """Mark a truncated payload."""
    cut = Oversized(payload)
    cut.size = size
    return cut
