"""MQTT 5 packets as bytes, legal and illegal ones."""

from __future__ import annotations

__all__ = ["TAKEN_OVER", "packet", "publish_packet", "text", "user_properties", "variable_length"]

TAKEN_OVER = 0x8E


def variable_length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + variable_length(len(body)) + body


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def publish_packet(
    topic: bytes, payload: bytes, qos: int, packet_id: int, flags: int = 0, properties: bytes = b""
) -> bytes:
    body = text(topic)
    if qos:
        body += packet_id.to_bytes(2, "big")
    body += variable_length(len(properties)) + properties + payload
    return packet(0x30 | flags | qos << 1, body)


def user_properties(count: int, size: int) -> bytes:
    return b"".join(b"\x26" + text(b"%d" % number) + text(b"x" * size) for number in range(count))
