"""The stream, compared with paho reading the same bytes."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from headrace.errors import ServerUnavailableError
from headrace.models.deadletter import Oversized
from headrace.storage.mqtt_stream import PublishStream
from tests.support.packets import packet, publish_packet, user_properties, variable_length

KEEP = 100_000


PINGRESP = b"\xd0\x00"
#: Packets for paho, which must pass whole and in order.
CONTROL = st.sampled_from(
    [PINGRESP, b"\x40\x02\x00\x07", b"\x40\x03\x00\x07\x10", b"\x90\x04\x00\x01\x00\x01"]
)


def some_properties(kind: str) -> bytes:
    properties = Properties(PacketTypes.PUBLISH)
    if kind == "user":
        properties.UserProperty = [("site", "north"), ("long", "x" * 200)]
    elif kind == "many":
        properties.MessageExpiryInterval = 60
        properties.ContentType = "application/json"
        properties.CorrelationData = b"\x00\x01"
    packed: bytes = properties.pack()
    # paho packs them with their length in front.
    length = 1 if packed[0] < 0x80 else 2
    return packed[length:]


PUBLISH = st.builds(
    publish_packet,
    topic=st.text(
        st.characters(codec="utf-8", exclude_characters="+#\x00", exclude_categories=["Cs"]),
        min_size=1,
        max_size=40,
    ).map(str.encode),
    payload=st.binary(max_size=300),
    qos=st.sampled_from([0, 1, 2]),
    packet_id=st.integers(1, 65_535),
    # Retained, and for QoS 1 and 2 also sent again.
    flags=st.sampled_from([0x00, 0x01]),
    properties=st.sampled_from(["none", "user", "many"]).map(some_properties),
) | st.builds(
    publish_packet,
    topic=st.just(b"emergency_generator/generator1"),
    payload=st.binary(max_size=200),
    qos=st.sampled_from([1, 2]),
    packet_id=st.integers(1, 65_535),
    flags=st.sampled_from([0x08, 0x09]),
    properties=st.just(b""),
)


@st.composite
def alike(draw: st.DrawFn) -> list[bytes]:
    """Return packets of one length, many of them with the same first bytes."""
    room = draw(st.sampled_from([60, 125, 300, 20_000]))
    packets = []
    for _ in range(draw(st.integers(2, 6))):
        topic = draw(st.sampled_from([b"fleet/a1", b"fleet/b2", b"fleet/long" + b"x" * 20]))
        # No property, or one that marks the payload as UTF-8.
        properties = draw(st.sampled_from([b"", b"", b"\x01\x01"]))
        # Zeros at the position of another packet's property length.
        payload = draw(st.sampled_from([b"\x00", b"x", b"ab\x00"]))
        payload = (payload * room)[: room - len(topic) - len(properties)]
        flags = draw(st.sampled_from([0, 0, 0, 0x01, 0x08]))
        number = draw(st.sampled_from([1, 255, 256, 512, 65_280, 65_535]))
        packets.append(publish_packet(topic, payload, 1, number, flags, properties))
    return packets


@contextmanager
def stream_of(keep: int = KEEP) -> Iterator[tuple[socket.socket, PublishStream]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield theirs, PublishStream(ours, keep)


def cut(pieces: Sequence[bytes], keep: int = KEEP) -> tuple[list[Any], bytes]:
    """Return the PUBLISH packets and other bytes that the stream reads from these pieces."""
    published: list[Any] = []
    control = b""
    with stream_of(keep) as (peer, stream):
        for piece in pieces:
            if not piece:
                continue
            peer.sendall(piece)
            stream.fill()
            published += stream.take()
            while stream.has_control:
                control += stream.recv(1000)
    return published, control


def as_paho_reads(data: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """Return the packets that paho reads from the same bytes."""
    seen: list[MQTTMessage] = []
    ours, theirs = socket.socketpair()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5, manual_ack=True)
    client.on_message = lambda _client, _userdata, message: seen.append(message)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        client._sock = ours
        # Sent in small parts, because paho's answers use the same buffers of the pair.
        for start in range(0, len(data), 4096):
            theirs.sendall(data[start : start + 4096])
            for _ in range(5000):
                client._packet_read()
            try:
                while theirs.recv(65_536):
                    pass
            except BlockingIOError:
                pass
        client._sock = None
    # paho holds QoS 2 messages back until the PUBREL.
    seen += client._in_messages.values()
    return [
        (
            message.dup << 3 | message.qos << 1 | message.retain,
            message.mid if message.qos else 0,
            message._topic,
            message.payload,
        )
        for message in seen
    ]


def cut_into(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@settings(max_examples=150)
@given(
    packets=st.lists(PUBLISH | CONTROL, max_size=12),
    places=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_the_stream_equals_paho_for_any_split(packets: list[bytes], places: list[int]) -> None:
    data = b"".join(packets)
    published, control = cut(cut_into(data, places))
    assert control == b"".join(packet for packet in packets if packet[0] & 0xF0 != 0x30)
    expected = as_paho_reads(b"".join(p for p in packets if p[0] & 0xF0 == 0x30))
    by_quality = sorted(published, key=lambda item: item[0] & 0x06 == 0x04)
    # paho stores QoS 2 messages by packet id, so it keeps only the last one of an id.
    kept = {}
    for item in by_quality:
        kept[(item[1], id(item)) if item[0] & 0x06 != 0x04 else ("qos2", item[1])] = item
    assert sorted(kept.values()) == sorted(expected)


@settings(max_examples=60)
@given(packets=alike(), places=st.lists(st.integers(0, 200_000), max_size=4))
def test_the_stream_equals_paho_for_similar_packets(
    packets: list[bytes], places: list[int]
) -> None:
    data = b"".join(packets)
    published, control = cut(cut_into(data, places))
    assert not control
    assert published == as_paho_reads(data)


@settings(max_examples=60)
@given(packets=st.lists(PUBLISH, min_size=1, max_size=5))
def test_the_stream_can_be_read_byte_by_byte(packets: list[bytes]) -> None:
    data = b"".join(packets)
    whole, _ = cut([data])
    single, _ = cut([data[index : index + 1] for index in range(len(data))])
    assert single == whole
    assert len(whole) == len(packets)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 65_535, 90_000])
def test_lengths_at_the_limits_are_read(size: int) -> None:
    packet = publish_packet(b"t", b"x" * size, 1, 1, 0, b"")
    published, _ = cut([packet[:3], packet[3:], PINGRESP])
    assert [(item[1], len(item[3])) for item in published] == [(1, size)]


@pytest.mark.parametrize("size", [KEEP + 1, KEEP + 200_000, 3_000_000])
@pytest.mark.parametrize("step", [1000, 70_000, 10_000_000])
def test_long_payloads_are_truncated(size: int, step: int) -> None:
    packet = publish_packet(b"topic", b"y" * size, 1, 9, 0, b"")
    data = packet + publish_packet(b"topic", b"after", 1, 10, 0, b"") + PINGRESP
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    published: list[Any] = []
    control = b""
    with stream_of() as (peer, stream):
        peer.setblocking(False)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                with suppress(BlockingIOError):
                    rest = rest[peer.send(rest) :]
                stream.fill()
                published += stream.take()
                assert len(stream._rest) <= KEEP + 400_000
        for _ in range(100):
            stream.fill()
        published += stream.take()
        while stream.has_control:
            control += stream.recv(100)
    long, after = published
    assert isinstance(long[3], Oversized)
    assert (long[1], long[3].size, len(long[3])) == (9, size, KEEP)
    assert (after[1], after[3]) == (10, b"after")
    assert control == PINGRESP


@pytest.mark.parametrize(
    "giant",
    [
        packet(
            0x32,
            b"\x00\x01t\x00\x09" + variable_length(64 << 20) + bytes(64 << 20) + b"payload",
        ),
        publish_packet(b"t", bytes(64 << 20), 1, 9),
        packet(0xE0, b"\x8b" + variable_length(64 << 20) + bytes(64 << 20)),
        publish_packet(b"t", b"payload", 0, 0, 0, user_properties(1000, 60_000)),
    ],
    ids=["properties", "payload", "disconnect", "user properties"],
)
def test_a_giant_packet_uses_little_memory(giant: bytes) -> None:
    data = memoryview(giant + publish_packet(b"t", b"after", 1, 10))
    published: list[Any] = []
    with stream_of() as (peer, stream):
        peer.setblocking(False)
        tracemalloc.start()
        try:
            while data:
                with suppress(BlockingIOError):
                    data = data[peer.send(data[: 1 << 20]) :]
                stream.fill()
                published += stream.take()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        for _ in range(100):
            stream.fill()
        published += stream.take()
    assert published[-1][3] == b"after"
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30\x02\xff\xff",  # a topic longer than the packet
        b"\x32\x05\x00\x01t\x00\x01",  # no room for the properties
        b"\x30\x05\x00\x01t\x20a",  # properties longer than the packet
    ],
)
def test_garbage_ends_the_connection(garbage: bytes) -> None:
    with stream_of() as (peer, stream):
        peer.sendall(garbage)
        with pytest.raises(ServerUnavailableError, match="malformed"):
            stream.fill()


@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with stream_of() as (peer, stream):
        peer.sendall(data)
        try:
            stream.fill()
        except ServerUnavailableError:
            return
        for flags, packet_id, topic, payload in stream.take():
            assert 0 <= flags <= 0x0F
            assert 0 <= packet_id <= 65_535
            assert len(topic) + len(payload) < len(data)


def test_paho_detects_the_end_of_the_stream() -> None:
    with stream_of() as (peer, stream):
        peer.close()
        stream.fill()
        assert stream.has_control
        assert stream.recv(1) == b""


def test_outgoing_packets_are_whole_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        stream = PublishStream(ours, KEEP)
        expected = b""
        received = b""
        for number in range(1, 3000):
            stream.acknowledge([number, number])
            expected += (b"\x40\x02" + number.to_bytes(2, "big")) * 2
            if number % 100 == 0:
                assert stream.send(b"\xc0\x00") == 2
                expected += b"\xc0\x00"
            if number % 500 == 0:
                received += theirs.recv(1 << 20)
        theirs.settimeout(0.2)
        while stream.wants_write or len(received) < len(expected):
            stream.flush()
            received += theirs.recv(1 << 20)
    assert received == expected
