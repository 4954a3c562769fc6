"""The bridge survives any packets from a broker without loss, duplicates or memory growth.

A property-based test: hypothesis generates what the broker sends, over real sockets. It takes
HOSTILE_SECONDS (60), which can be an hour. HOSTILE_SEED repeats a round that failed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from tests.support.devices import reading
from tests.support.live_bridge import InstantKafka, running_bridge
from tests.support.lying_broker import Client, LyingBroker
from tests.support.packets import packet, publish_packet, text, user_properties

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "60"))
GOOD = b"emergency_generator/good"
_DUP, _PUBREC = 0x08, 0x50
_PATIENCE = 30.0


@dataclass
class Step:
    """The broker's next action.

    Parameters
    ----------
    data
        The packet.
    packet_id
        Packet id; the packet is sent again until it is acknowledged. 0: sent once.
    counted
        Expected number of copies in Kafka; `None` if it does not matter.
    closes
        Whether the broker closes the connection afterwards.
    """

    data: bytes
    packet_id: int = 0
    counted: int | None = None
    closes: bool = False


@dataclass
class RedeliveringBroker(LyingBroker):
    """Performs its steps in order and redelivers unacknowledged messages at each connection."""

    steps: list[Step] = field(default_factory=list)
    piece: int = 0
    #: Whether it sets DUP on redelivered messages.
    marks: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.done: set[int] = set()
        self.sent: set[int] = set()
        self.play = self._play

    def _play(self, client: Client) -> None:
        client.piece = self.piece
        acknowledged = {packet_id for _, packet_id in self.acknowledged}
        for number, step in enumerate(self.steps):
            if step.packet_id in acknowledged if step.packet_id else number in self.done:
                continue
            data = step.data
            if step.packet_id in self.sent and self.marks:
                data = bytes([data[0] | _DUP]) + data[1:]
            self.done.add(number)
            if step.packet_id:
                self.sent.add(step.packet_id)
            client.send(data)
            if step.closes:
                client.close()
                return


ROUND = settings(
    max_examples=50,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
    print_blob=True,
)

# --- What a broker may send --------------------------------------------------------------

DEVICES = st.sampled_from([b"g1", b"g2", "gener\u00e4tor".encode(), b"x" * 300, b" ", b"a,b\\"])
TOPICS = st.one_of(
    DEVICES.map(lambda device: b"emergency_generator/" + device),
    DEVICES.map(lambda device: b"emergency_generator/" + device + b"/status"),
    st.sampled_from(
        [
            b"", b"/", b"emergency_generator", b"emergency_generator/", b"$SYS/broker/uptime",
            b"emergency_generator/a/b/c", b"\xff\xfe", b"emergency_generator/a\x00b", b"+", b"#",
            b"t" * 65_535, b"emergency_generator/" + b"/" * 1000,
        ]
    ),
)  # fmt: skip
NOISE = st.sampled_from(
    [
        b"\xd0\x00", b"\x40\x02\x00\x07", b"\x40\x04\x00\x07\x10\x00", b"\x62\x02\x00\x07",
        b"\x90\x04\xff\xff\x00\x01", b"\xb0\x04\xff\xff\x00\x00", b"\x20\x03\x00\x00\x00",
        b"\x20\x03\x00\x87\x00", b"\x00\x00", b"\x10\x02ab", b"\x82\x00", b"\xf0\x02\x18\x00",
        b"\xff\xff\xff\xff\xff\xff", b"\x90\x00", b"\xd0\x01x",
    ]
)  # fmt: skip
REASONS = st.integers(0, 255).map(lambda code: packet(0xE0, bytes([code])))
MALFORMED = st.sampled_from(
    [
        lambda number: packet(0x36, text(GOOD) + number + b"\x00QoS 3"),
        lambda number: packet(0x32, text(GOOD) + number),
        lambda number: packet(0x32, text(GOOD) + number + b"\xff\xff\xff\xff\xff"),
        lambda number: packet(0x32, text(GOOD) + number + b"\x7f" + number),
        lambda number: packet(0x32, text(GOOD) + number + b"\xff\xff\xff\x7f" + bytes(250_000)),
    ]
)


@st.composite
def properties(draw: st.DrawFn) -> bytes:
    one = st.one_of(
        st.sampled_from(
            [
                b"\x01\x01", b"\x02\x00\x00\x00\x3c", b"\x03" + text(b"application/json"),
                b"\x08" + text(b"answer"), b"\x09" + text(b"\x00\xff"), b"\x0b\x07",
                b"\x0b\xff\xff\xff\x7f", b"\x23\x00\x01", b"\xfe",
            ]
        ),
        st.builds(user_properties, st.integers(1, 4), st.sampled_from([0, 5, 60_000, 65_535])),
    )  # fmt: skip
    return b"".join(draw(st.lists(one, max_size=4)))


@st.composite
def publishes(draw: st.DrawFn, number: int) -> Step:
    topic = draw(TOPICS)
    device = topic.split(b"/")[1].decode("utf-8", "replace") if topic.count(b"/") else "g1"
    content = json.dumps(reading(device, fuel=number)).encode()
    payload = draw(
        st.one_of(
            st.just(content),
            st.just(b"%d online" % number),
            st.just(b"online"),
            st.binary(max_size=40).map(lambda data: data + b"%d" % number),
            st.sampled_from([1, 1000, 70_000, 400_000]).map(lambda n: b"%d" % number + b"p" * n),
            st.just(b""),
        )
    )
    qos = draw(st.sampled_from([0, 1, 1, 1, 2]))
    flags = draw(st.sampled_from([0, 0, 0x01]))
    data = publish_packet(topic, payload, qos, number, flags, draw(properties()))
    status = topic.endswith(b"/status")
    counted = None if status or not payload or not qos else 1
    return Step(data, number if qos else 0, counted)


@st.composite
def scripts(draw: st.DrawFn) -> list[Step]:
    steps = []
    for number in range(1, 1 + draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["publish"] * 6 + ["noise", "reason", "close", "malformed"]))
        if kind == "publish":
            steps.append(draw(publishes(number)))
        elif kind == "malformed":
            make = draw(MALFORMED)
            steps.append(Step(make(number.to_bytes(2, "big")), number, 1))
        elif kind == "noise":
            steps.append(Step(draw(NOISE)))
        elif kind == "reason":
            steps.append(Step(draw(REASONS)))
        else:
            steps.append(Step(b"", closes=True))
    number = 1000
    good = json.dumps(reading("good", fuel=number)).encode()
    return [*steps, Step(publish_packet(GOOD, good, 1, number), number, 1)]


def check(
    steps: list[Step], piece: int, profile: Profile, codec: ReadingCodec, *, marks: bool
) -> None:
    """Run a bridge with a broker and check the result of each message."""
    kafka = InstantKafka()
    wanted = {step.packet_id for step in steps if step.packet_id}
    with RedeliveringBroker(steps=steps, piece=piece, marks=marks) as broker:
        with running_bridge(broker.port, kafka, profile, codec, wake=broker.wake_clients) as raised:
            deadline = time.monotonic() + _PATIENCE
            while missing := wanted - {packet_id for _, packet_id in broker.acknowledged}:
                assert not raised, repr(raised[0])
                assert time.monotonic() < deadline, f"not acknowledged: {missing}"
                time.sleep(0.002)
        assert not raised, repr(raised[0])
    stored = Counter(int(record.headers["packet_id"]) for record in kafka.records)
    for step in steps:
        if step.counted is not None:
            assert stored[step.packet_id] == step.counted, step.packet_id
    good = [record for record in kafka.records if record.headers["packet_id"] == b"1000"]
    assert [record.topic for record in good] == [profile.topics.raw]
    assert all(kind == _PUBREC for kind, number in broker.acknowledged if number in twice(steps))


def twice(steps: list[Step]) -> set[int]:
    """Return the packet ids at QoS 2."""
    return {step.packet_id for step in steps if step.data[:1] and step.data[0] & 0xF6 == 0x34}


def memory() -> int:
    """Return the memory of this process in MiB, after freeing unused memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() >> 20


def test_the_bridge_survives_any_broker(profile: Profile, codec: ReadingCodec) -> None:
    start = int(os.environ.get("HOSTILE_SEED") or random.SystemRandom().randrange(10**6))
    deadline = time.monotonic() + SECONDS
    examples = 0
    held: list[int] = []

    def any_broker(steps: list[Step], piece: int, *, marks: bool) -> None:
        nonlocal examples
        if time.monotonic() > deadline:
            return
        if sum(len(step.data) for step in steps) > 100_000:
            # Byte by byte, it would take minutes.
            piece = piece and 50_000
        check(steps, piece, profile, codec, marks=marks)
        examples += 1

    # Free the memory of hypothesis after each round.
    for number in count(start):
        print(f"HOSTILE_SEED={number}")  # noqa: T201 - runs it again
        pieces = st.sampled_from([0, 0, 1, 7, 50_000])
        made = given(steps=scripts(), piece=pieces, marks=st.booleans())(any_broker)
        seed(number)(ROUND(made))()
        held.append(memory())
        if time.monotonic() > deadline:
            break
    print(f"{examples} brokers; memory {held[0]} to {held[-1]} MiB")  # noqa: T201
    assert examples >= SECONDS / 10
    assert held[-1] - held[0] < 64
