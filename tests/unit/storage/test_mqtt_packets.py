"""Condensed packets and malformed packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import _packet as paho
from paho.mqtt.enums import MQTTProtocolVersion
from structlog.testing import capture_logs

from headrace.storage.mqtt_packets import MalformedPacketError, MalformedPackets, condense
from tests.support.packets import packet, text, user_properties, variable_length

#: Properties of a CONNACK that are needed, and those that are removed.
KEPT = [
    b"\x11\x00\x00\x00\x3c",
    b"\x12" + text(b"assigned"),
    b"\x13\x00\x0a",
    b"\x1c" + text(b"elsewhere"),
    b"\x21\x00\x05",
    b"\x24\x01",
    b"\x27\x00\x00\x10\x00",
    b"\x28\x00",
]
LEFT_OUT = [b"\x1f" + text(b"because"), *[b"\x26" + text(b"name") + text(b"v" * 500)] * 3]


def body_of(condensed: bytes) -> bytes:
    """Return a packet after its length field."""
    position = 1
    while condensed[position] > 0x7F:
        position += 1
    body = condensed[position + 1 :]
    assert packet(condensed[0], body) == condensed
    return body


@given(st.permutations(KEPT + LEFT_OUT))
def test_a_condensed_connack_has_the_same_meaning(properties: list[bytes]) -> None:
    joined = b"".join(properties)
    body = b"\x01\x00" + variable_length(len(joined)) + joined
    condensed = body_of(condense(0x20, body))
    assert len(condensed) < 100
    version = MQTTProtocolVersion.MQTTv5
    said, whole = (paho.decode_connack(0x20, item, version) for item in (condensed, body))
    assert (said.flags, said.reason) == (whole.flags, whole.reason)
    assert said.properties is not None
    assert whole.properties is not None
    expected = whole.properties.json()
    del expected["UserProperty"], expected["ReasonString"]
    assert said.properties.json() == expected


@pytest.mark.parametrize("length", [2, 3, 50, 59_999, 100_000])
def test_a_truncated_connack_keeps_its_complete_part(length: int) -> None:
    properties = b"\x24\x00" + user_properties(30, 60_000)
    body = b"\x00\x00" + variable_length(len(properties)) + properties
    condensed = condense(0x20, body[: 2 + 3 + length], complete=False)
    assert condensed == b"\x20\x05\x00\x00\x02\x24\x00"


def test_an_answer_keeps_its_packet_id_and_reasons() -> None:
    properties = user_properties(2, 300)
    body = b"\x00\x07" + variable_length(len(properties)) + properties + b"\x01\x87"
    assert condense(0x90, body) == packet(0x90, b"\x00\x07\x00\x01\x87")
    assert condense(0x40, b"\x00\x07\x10" + properties) == packet(0x40, b"\x00\x07\x10")


@given(first=st.integers(0, 255), body=st.binary(max_size=60), complete=st.booleans())
def test_condensing_never_lengthens_a_packet(first: int, body: bytes, *, complete: bool) -> None:
    assert len(body_of(condense(first, body, complete=complete))) <= len(body)


def test_the_first_malformed_packet_ends_the_connection_and_later_ones_are_skipped() -> None:
    now = 1000.0
    malformed = MalformedPackets(lambda: now)
    with pytest.raises(MalformedPacketError):
        malformed.set_aside(b"one", 2, MalformedPacketError("bad", 1))
    with capture_logs() as logs:
        for number in range(2, 500):
            assert malformed.set_aside(b"x%d" % number, 2, MalformedPacketError("bad", number))
    assert [log["event"] for log in logs] == ["malformed MQTT packet set aside"]
    assert malformed.count == 498
    now += 601.0
    with pytest.raises(MalformedPacketError):
        malformed.set_aside(b"late", 2, MalformedPacketError("bad", 9))


def test_a_malformed_packet_without_acknowledgement_is_passed_on_once() -> None:
    malformed = MalformedPackets(lambda: 1000.0)
    with pytest.raises(MalformedPacketError):
        malformed.set_aside(b"one", 2, MalformedPacketError("bad"))
    assert [malformed.set_aside(b"one", 2, MalformedPacketError("bad")) for _ in range(3)] == [
        True,
        False,
        False,
    ]
    # At QoS 0 nothing is redelivered, so another packet is another message.
    assert malformed.set_aside(b"two", 0, MalformedPacketError("bad"))
    assert malformed.set_aside(b"two", 0, MalformedPacketError("bad"))
