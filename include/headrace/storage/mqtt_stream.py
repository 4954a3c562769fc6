"""PUBLISH packets cut out of the byte stream before paho sees them.

paho reads a packet with three system calls and builds an object of a dozen fields for
it, which is most of what receiving a short reading costs. Here the socket is read in
large pieces, PUBLISH packets become plain tuples, and every other packet is handed on to
paho, which keeps the session: connect, subscribe, ping, disconnect.

Only this module knows how MQTT 5 packets are laid out. The tests hold it against paho's
own reading of the same bytes.
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import TypeAlias

from headrace.errors import ServerUnavailableError
from headrace.models.deadletter import Oversized

__all__ = ["DUP", "QOS", "RETAIN", "Publish", "PublishStream"]

#: A PUBLISH packet: flags of its first byte, packet id (0 at QoS 0), topic, payload.
Publish: TypeAlias = tuple[int, int, bytes, bytes]

DUP = 0x08
QOS = 0x06
RETAIN = 0x01

_PUBLISH = 0x30
_TYPE = 0xF0
_QOS_1 = 0x02
#: The first byte, a length of two bytes, and the length of the topic: in the packets of a
#: fleet they are the same again and again, and so is where the parts of those packets are.
_HEAD_BYTES = 5
_MAX_SHAPES = 4096
#: A PUBACK's first two bytes: nothing follows but the packet id, which means success.
_PUBACK = 0x4002
_READ_BYTES = 256 * 1024
#: Topic, packet id and properties of a PUBLISH have to fit in so much.
_HEADER_BYTES = 128 * 1024


class _MalformedPacketError(Exception):
    """The bytes are no MQTT 5 packet."""


class PublishStream:
    """A socket that keeps PUBLISH packets back and lets paho read the rest.

    It takes the place of paho's socket. paho reads and writes as ever; whoever runs the
    loop calls `fill` when the socket is readable, `take` for what was published, and
    `flush` when it is writable.

    Parameters
    ----------
    sock
        The connected socket, TLS or not. It is made non-blocking by paho.
    keep_bytes
        Payloads longer than this are cut to an `Oversized`, so that no packet takes
        more memory, however long it is.
    """

    def __init__(self, sock: socket.socket, keep_bytes: int) -> None:
        self._sock = sock
        self._keep_bytes = keep_bytes
        self._packet_limit = keep_bytes + _HEADER_BYTES
        self._rest = b""
        self._skip = 0
        self._published: list[Publish] = []
        #: Of packets at QoS 1 that were read already, by their first bytes: where the topic
        #: begins and ends, and how long the packet is.
        self._shapes: dict[bytes, tuple[int, int, int]] = {}
        self._control = bytearray()
        self._unsent = bytearray()
        self._ended = False

    # What paho calls

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
        """Take a packet from paho. It goes out whole, after what waits already."""
        self._unsent += data
        self.flush()
        return len(data)

    def fileno(self) -> int:
        """Descriptor of the socket, for select."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own signature
        """Make the socket blocking or not."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    # What the loop calls

    @property
    def has_control(self) -> bool:
        """Whether there is something for paho to read, the end of the stream included."""
        return bool(self._control) or self._ended

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._unsent)

    def fill(self) -> None:
        """Read what has arrived, up to 256 KiB, and cut it into packets.

        Raises
        ------
        ServerUnavailableError
            If the broker sends what is no MQTT packet.
        """
        try:
            data = self._sock.recv(_READ_BYTES)
            # TLS keeps decrypted bytes where select does not see them.
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                data += self._sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            # paho finds the end of the stream and does what is due at a lost connection.
            data = b""
        if not data:
            self._ended = True
            return
        try:
            self._cut(self._rest + data if self._rest else data)
        except (_MalformedPacketError, IndexError) as exc:
            msg = f"the MQTT broker sent a malformed packet: {exc}"
            raise ServerUnavailableError(msg) from exc

    def take(self) -> list[Publish]:
        """Hand over the PUBLISH packets that have arrived, in order."""
        published, self._published = self._published, []
        return published

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Send a PUBACK for each packet id, in that order, in one write."""
        numbers = [_PUBACK, 0] * len(packet_ids)
        numbers[1::2] = packet_ids
        self._unsent += struct.pack(f">{len(numbers)}H", *numbers)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return

    def _cut(self, data: bytes) -> None:
        end = len(data)
        position = min(self._skip, end)
        self._skip -= position
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
        """Cut out a packet of any kind.

        Returns
        -------
        int
            Where the next one begins; `position` if this one is not all there yet.
        """
        end = len(data)
        first = data[position]
        length = data[position + 1]
        body = position + 2
        if length > 0x7F:  # noqa: PLR2004
            try:
                length, body = _variable_length(data, position + 1)
            except IndexError:
                return position
        stop = available = body + length
        is_publish = first & _TYPE == _PUBLISH
        if length > self._packet_limit:
            if not is_publish:
                msg = f"{length} bytes in a packet of type {first >> 4}"
                raise _MalformedPacketError(msg)
            available = body + self._packet_limit
        if available > end:
            return position
        if not is_publish:
            self._control += data[position:stop]
            return stop
        self._published.append(self._parse(data, first, body, available, stop))
        if first == _PUBLISH | _QOS_1 and body <= position + 3:
            self._learn(data, position, body, stop)
        self._skip = max(0, stop - end)
        return min(stop, end)

    def _learn(self, data: bytes, position: int, body: int, stop: int) -> None:
        """Note the shape of a packet, for those that begin with the same bytes."""
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        topic = body + 2 - position
        behind = topic + (data[body] << 8 | data[body + 1])
        self._shapes[data[position : position + _HEAD_BYTES]] = topic, behind, stop - position

    def _parse(self, data: bytes, first: int, body: int, available: int, stop: int) -> Publish:
        """Parse a PUBLISH whose body is ``data[body:stop]``, of which some may be missing."""
        end = body + 2 + (data[body] << 8 | data[body + 1])
        topic = data[body + 2 : end]
        packet_id = 0
        if first & QOS:
            packet_id = data[end] << 8 | data[end + 1]
            end += 2
        properties = data[end]
        end += 1
        if properties > 0x7F:  # noqa: PLR2004
            properties, end = _variable_length(data, end - 1)
        end += properties
        if end > available:
            msg = "a PUBLISH whose parts are longer than the whole"
            raise _MalformedPacketError(msg)
        payload = data[end:available]
        if stop - end > self._keep_bytes:
            payload = Oversized(payload[: self._keep_bytes])
            payload.size = stop - end
        return first & 0x0F, packet_id, topic, payload


def _variable_length(data: bytes, position: int) -> tuple[int, int]:
    """Read a variable byte integer of more than one byte; returns it and the position behind it.

    Raises
    ------
    IndexError
        If it is not all there yet.
    """
    # Two bytes in most readings.
    value = (data[position] & 0x7F) | (data[position + 1] & 0x7F) << 7
    position += 1
    for shift in (14, 21):
        if data[position] < 0x80:  # noqa: PLR2004
            return value, position + 1
        position += 1
        value |= (data[position] & 0x7F) << shift
    if data[position] > 0x7F:  # noqa: PLR2004
        msg = "a length of more than four bytes"
        raise _MalformedPacketError(msg)
    return value, position + 1
