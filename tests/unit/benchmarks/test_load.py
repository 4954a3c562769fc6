"""The benchmark's load equals the messages of real devices."""

from __future__ import annotations

import socket

from benchmarks.load.packets import publish
from benchmarks.readings import FIRST_NUMBER, device, lines, payload
from headrace.models.reading import ReadingCodec
from headrace.storage.mqtt_stream import QOS, PublishStream
from headrace.storage.reading_lines import LineEncoder


def test_readings_are_valid_and_of_one_length(codec: ReadingCodec) -> None:
    some = [payload(number % 10_000, number) for number in range(0, 60_000, 7)]
    assert len({len(item) for item in some}) == 1
    for number, item in zip(range(0, 60_000, 7), some, strict=True):
        assert codec.check(item, device(number % 10_000), 1_700_000_000 * 10**9) is None
        assert str(FIRST_NUMBER + number).encode() in item


def test_a_line_equals_what_the_sink_writes(encoder: LineEncoder) -> None:
    line = lines("genData", "generatorID")(3, 4, 1_700_000_000 * 10**9)
    assert line.encode() == encoder.line(payload(3, 4), b"%d" % (1_700_000_000 * 10**9))


def test_packets_are_valid_mqtt() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = PublishStream(ours, 65_536)
    # MQTT 5 adds properties; an empty list of properties is one zero byte.
    theirs.sendall(publish("a/b", 7, b"\x00" + payload(0, 1)))
    stream.fill()
    assert stream.take() == [(QOS & 0x02, 7, b"a/b", payload(0, 1))]
    ours.close()
    theirs.close()
