"""Parses MQTT 5 packets without trusting any length field."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TypeAlias

import structlog

__all__ = [
    "DUP",
    "MALFORMED_TOPIC",
    "QOS",
    "RETAIN",
    "MalformedPacketError",
    "MalformedPackets",
    "Publish",
    "condense",
    "publish_head",
    "variable_length",
]

_log = structlog.get_logger(__name__)

#: A PUBLISH packet: flags of its first byte, packet id (0 at QoS 0), topic, payload.
Publish: TypeAlias = tuple[int, int, bytes, bytes]

DUP = 0x08
QOS = 0x06
RETAIN = 0x01

#: Topic of a packet that can't be parsed. MQTT allows no NUL in a topic. The payload of
#: such a `Publish` is the packet after its length.
MALFORMED_TOPIC = b"\0malformed packet"

#: A malformed packet ends the connection only if there was none for this long.
_MALFORMED_MEMORY_SECONDS = 600.0
_LOG_SECONDS = 60.0
_MAX_KNOWN = 1000

_CONNACK, _SUBACK, _UNSUBACK, _DISCONNECT, _AUTH = 0x20, 0x90, 0xB0, 0xE0, 0xF0
#: Number of bytes before the properties, for packets that have them.
_BEFORE_PROPERTIES = {_CONNACK: 2, _SUBACK: 2, _UNSUBACK: 2, _DISCONNECT: 1, _AUTH: 1}
#: PUBACK to PUBCOMP: a packet id and a reason code.
_ANSWERS = {0x40: 3, 0x50: 3, 0x60: 3, 0x70: 3}
_REASON_STRING, _USER_PROPERTY = 0x1F, 0x26
#: Properties by the size of their value. All others are text or bytes with a length.
_SIZES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_TEXTS = {0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, _REASON_STRING}


class MalformedPacketError(Exception):
    """A packet does not have the format of MQTT 5.

    Parameters
    ----------
    detail
        The error in the packet.
    packet_id
        Packet id, 0 if it has none or none can be found.
    """

    def __init__(self, detail: str, packet_id: int = 0) -> None:
        super().__init__(detail)
        self.packet_id = packet_id


class MalformedPackets:
    """Decides what happens with malformed packets of one session.

    MQTT requires that the connection ends. The broker then redelivers the packet, so ending the
    connection each time would stop all ingest. So the first one ends the connection, and those
    within the next ten minutes are set aside.

    Parameters
    ----------
    clock
        Monotonic time in seconds.

    Attributes
    ----------
    count
        Number of packets that were set aside.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._logged = -_LOG_SECONDS
        self._known: dict[int, None] = {}
        self.count = 0

    def set_aside(self, packet: bytes, flags: int, error: MalformedPacketError) -> bool:
        """Record a malformed packet.

        Parameters
        ----------
        packet
            The packet after its length, or the beginning of it.
        flags
            Flags of its first byte.
        error
            The error in the packet.

        Returns
        -------
        bool
            Whether it is passed on. A repeated packet without a packet id is not, because the
            broker repeats packets that can't be acknowledged at every connection.

        Raises
        ------
        MalformedPacketError
            If it ends the connection.
        """
        now = self._clock()
        first = self._last is None or now - self._last > _MALFORMED_MEMORY_SECONDS
        self._last = now
        if first:
            raise error
        self.count += 1
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            _log.warning(
                "malformed MQTT packet set aside",
                reason=str(error),
                packet_id=error.packet_id,
                bytes=len(packet),
                total=self.count,
            )
        if error.packet_id:
            return True
        digest = hash(packet)
        if flags & QOS and digest in self._known:
            return False
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[digest] = None
        return True


def publish_head(data: bytes, first: int, body: int, stop: int) -> tuple[int, bytes, int]:
    """Parse a PUBLISH up to its payload. Properties are skipped, not parsed.

    Parameters
    ----------
    data
        Bytes of the packet, at least its topic, packet id and the length of its
        properties.
    first
        First byte of the packet.
    body, stop
        Where in the bytes the packet begins after its length, and where it ends.

    Returns
    -------
    tuple of int, bytes, int
        Packet id, topic, and where in the bytes the payload begins.

    Raises
    ------
    MalformedPacketError
        If the parts do not fit into the packet, or the QoS is 3.
    """
    if stop - body < 2:  # noqa: PLR2004
        msg = "a PUBLISH without a topic"
        raise MalformedPacketError(msg)
    end = body + 2 + (data[body] << 8 | data[body + 1])
    if end > stop:
        msg = "a PUBLISH whose topic is longer than the packet"
        raise MalformedPacketError(msg)
    topic = data[body + 2 : end]
    packet_id = 0
    if first & QOS:
        if end + 2 > stop:
            msg = "a PUBLISH without a packet id"
            raise MalformedPacketError(msg)
        packet_id = data[end] << 8 | data[end + 1]
        end += 2
        if first & QOS == QOS:
            msg = "a PUBLISH with QoS 3"
            raise MalformedPacketError(msg, packet_id)
    try:
        properties, end = variable_length(data[end : min(end + 4, stop)], 0, end)
    except (IndexError, MalformedPacketError):
        msg = "a PUBLISH without a valid length of its properties"
        raise MalformedPacketError(msg, packet_id) from None
    end += properties
    if end > stop:
        msg = "a PUBLISH whose properties are longer than the packet"
        raise MalformedPacketError(msg, packet_id)
    return packet_id, topic, end


def variable_length(data: bytes, position: int, offset: int = 0) -> tuple[int, int]:
    """Read a variable byte integer.

    Returns
    -------
    tuple of int, int
        The number, and the position after it plus the offset.

    Raises
    ------
    IndexError
        If the data end before it does.
    MalformedPacketError
        If it is longer than four bytes.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, position + offset
    msg = "a length of more than four bytes"
    raise MalformedPacketError(msg)


def condense(first: int, body: bytes, *, complete: bool = True) -> bytes:
    """Shorten a control packet by removing user properties and reason strings.

    Both can be in any packet, up to 256 MiB in total, and nothing depends on them.

    Parameters
    ----------
    first
        First byte of the packet.
    body
        The packet after its length, or the beginning of it.
    complete
        Whether the body is complete. Otherwise the missing part is left out.

    Returns
    -------
    bytes
        A packet. It is the given one if that can't be parsed, for the reader to refuse.
    """
    kind = first & 0xF0
    if kind in _ANSWERS:
        return _packet(first, body[: _ANSWERS[kind]])
    before = _BEFORE_PROPERTIES.get(kind)
    if before is None or len(body) <= before:
        return _packet(first, body)
    try:
        length, start = variable_length(body, before)
        stop = start + length
        properties = _without_text(body[start:stop])
    except (IndexError, MalformedPacketError):
        return _packet(first, body)
    rest = body[stop:] if complete else b""
    return _packet(first, body[:before] + _encoded(len(properties)) + properties + rest)


def _without_text(properties: bytes) -> bytes:
    """Remove user properties, reason strings and an incomplete property at the end."""
    kept: list[bytes] = []
    position, end = 0, len(properties)
    while position < end:
        kind, start = properties[position], position
        position += 1
        if kind in _SIZES:
            position += _SIZES[kind]
        elif kind in _TEXTS or kind == _USER_PROPERTY:
            for _ in range(2 if kind == _USER_PROPERTY else 1):
                if position + 2 > end:
                    return b"".join(kept)
                position += 2 + struct.unpack_from(">H", properties, position)[0]
        else:
            msg = f"property {kind}"
            raise MalformedPacketError(msg)
        if position <= end and kind not in (_USER_PROPERTY, _REASON_STRING):
            kept.append(properties[start:position])
    return b"".join(kept)


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _encoded(len(body)) + body


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)
