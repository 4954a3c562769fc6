"""The MQTT 3.1.1 packets of a load generator."""

from __future__ import annotations

import socket

__all__ = ["connect", "exactly", "publish", "receive_packet", "subscribe"]

_CONNACK, _SUBACK = 0x20, 0x90


def connect(port: int, client_id: str, *, clean: bool = True) -> socket.socket:
    """Open a session at the local broker.

    Raises
    ------
    ConnectionError
        If the broker refuses.
    """
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    # Protocol level 4; a keep-alive of 0 turns it off.
    body = _text(b"MQTT") + b"\x04" + (b"\x02" if clean else b"\x00") + b"\x00\x00"
    sock.sendall(_packet(0x10, body + _text(client_id.encode())))
    answer = receive_packet(sock, _CONNACK)
    if answer[1]:
        msg = f"the broker refuses: {answer[1]}"
        raise ConnectionError(msg)
    return sock


def subscribe(sock: socket.socket, topic_filter: str) -> None:
    """Subscribe at QoS 1 and wait for the answer."""
    sock.sendall(_packet(0x82, b"\x00\x01" + _text(topic_filter.encode()) + b"\x01"))
    receive_packet(sock, _SUBACK)


def publish(topic: str, packet_id: int, payload: bytes) -> bytes:
    """Encode a PUBLISH at QoS 1."""
    return _packet(0x32, _text(topic.encode()) + packet_id.to_bytes(2, "big") + payload)


def receive_packet(sock: socket.socket, kind: int) -> bytes:
    """Read one short packet of the expected kind; return its body."""
    first, length = exactly(sock, 2)
    body = exactly(sock, length)
    if first != kind:
        msg = f"a packet of type {first:#x} instead of {kind:#x}"
        raise ConnectionError(msg)
    return body


def exactly(sock: socket.socket, count: int) -> bytes:
    """Read this number of bytes."""
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            msg = "the broker has closed the connection"
            raise ConnectionError(msg)
        data += piece
    return bytes(data)


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _packet(first: int, body: bytes) -> bytes:
    length = len(body)
    if length < 0x80:  # noqa: PLR2004 - seven bits a byte
        return bytes((first, length)) + body
    return bytes((first, 0x80 | length & 0x7F, length >> 7)) + body
