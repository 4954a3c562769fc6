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
        # 0x40: PUBACK. 2: nothing follows but the packet id, which means success.
        self._unsent += b"".join(
            [b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids]
        )
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return

    def _cut(self, data: bytes) -> None:
        position = 0
        end = len(data)
        if self._skip:
            position = min(self._skip, end)
            self._skip -= position
        publish = self._published.append
        while end - position >= 2:  # noqa: PLR2004
            first = data[position]
            length = data[position + 1]
            body = position + 2
            if length > 0x7F:  # noqa: PLR2004
                try:
                    length, body = _variable_length(data, position + 1)
                except IndexError:
                    break
            stop = body + length
            if length > self._packet_limit and first & _TYPE == _PUBLISH:
                if end - body < self._packet_limit:
                    break
                publish(self._parse(data, first, body, body + self._packet_limit, stop))
                self._skip = max(0, stop - end)
                position = min(stop, end)
                continue
            if length > self._packet_limit:
                msg = f"{length} bytes in a packet of type {first >> 4}"
                raise _MalformedPacketError(msg)
            if stop > end:
                break
            if first & _TYPE == _PUBLISH:
                publish(self._parse(data, first, body, stop, stop))
            else:
                self._control += data[position:stop]
            position = stop
        self._rest = data[position:]

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
    """Read a variable byte integer; returns it and the position behind it.

    Raises
    ------
    IndexError
        If it is not all there yet.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, position
    msg = "a length of more than four bytes"
    raise _MalformedPacketError(msg)
