"""The intake turns an MQTT message into a record, a dead letter or nothing."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError

from headrace.ingest.devices import DeviceLimits
from headrace.ingest.fingerprints import Fingerprint
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.presence import PresenceRegistry
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.stamps import StampClock
from headrace.models.deadletter import Oversized
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.mqtt_stream import DUP
from tests.support.devices import reading
from tests.support.producers import KeepingProducer, LosingProducer, Record, outbox_of

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
QOS_1 = 0x02
RAW, LETTERS, STATUS = "kafka_raw", "kafka_raw.dlq", "generator_status"


class Rig:
    """An intake and its parts.

    Parameters
    ----------
    profile, codec
        The kind of device.
    producer
        Stands for Kafka.
    parts
        Parts of the intake that replace the defaults.
    """

    def __init__(
        self, profile: Profile, codec: ReadingCodec, producer: KeepingProducer, **parts: Any
    ) -> None:
        self.now_ns = NOW
        self.monotonic_ns = 0
        self.producer = producer
        self.in_flight = InFlight(1 << 30)
        self.recent = RecentPackets(parts.pop("known", ()))
        self.metrics = BridgeMetrics()
        self.presence = PresenceRegistry({})
        self.intake = Intake(
            profile,
            codec,
            outbox_of(producer),
            self.in_flight,
            self.recent,
            self.presence,
            self.metrics,
            bridge="bridge",
            max_clock_drift=timedelta(seconds=5),
            clock=StampClock(lambda: self.now_ns, lambda: self.monotonic_ns),
            **parts,
        )

    def take(
        self,
        payload: bytes,
        topic: str | bytes = "emergency_generator/generator1",
        packet_id: int = 1,
        flags: int = QOS_1,
    ) -> Record | None:
        """Take one message; return the resulting record."""
        name = topic.encode() if isinstance(topic, str) else topic
        before = len(self.producer.records)
        self.intake.take([(flags, packet_id, name, payload)])
        return self.producer.records[-1] if len(self.producer.records) > before else None

    def wait(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)
        self.monotonic_ns += int(seconds * SECOND)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"{name}_total", labels) or 0.0


@pytest.fixture
def make_rig(profile: Profile, codec: ReadingCodec) -> Callable[..., Rig]:
    def make(producer: KeepingProducer | None = None, **parts: Any) -> Rig:
        return Rig(profile, codec, producer or KeepingProducer(), **parts)

    return make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def in_json(device: str = "generator1", **changes: Any) -> bytes:
    return json.dumps(reading(device, **changes)).encode()


#: A reading of device 00000000.
GOOD = in_json("00000000")


def headers(record: Record | None) -> dict[str, str]:
    assert record is not None
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in record["headers"]
    }


def test_a_reading_becomes_a_raw_record(rig: Rig) -> None:
    record = rig.take(in_json(), packet_id=7)
    assert record is not None
    assert (record["topic"], record["value"], record["key"]) == (RAW, in_json(), b"generator1")
    assert list(headers(record).items()) == [
        ("time_ns", str(NOW)),
        ("topic", "emergency_generator/generator1"),
        ("bridge", "bridge"),
        ("packet_id", "7"),
        ("seq", "1"),
    ]


def test_kafka_stamps_the_record_and_not_the_device(rig: Rig) -> None:
    """So a device's date can neither delete a segment nor be refused by Kafka."""
    record = rig.take(in_json(time=(NOW - 8 * 86_400 * SECOND) // 10**6))
    assert record is not None
    assert not record.get("timestamp")
    assert headers(record)["time_ns"] == str(NOW - 8 * 86_400 * SECOND)
    assert headers(record)["taken_ns"] == str(NOW)


def test_every_record_is_numbered(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(known=[Fingerprint(41, NOW, 5, 0)])
    taken = [
        rig.take(in_json(), packet_id=1),
        rig.take(b"bad", packet_id=2),
        rig.take(b"online", "emergency_generator/generator1/status", packet_id=3),
        rig.take(in_json(), packet_id=4),
        rig.take(in_json(), packet_id=0, flags=0),
    ]
    # A message at QoS 0 is never redelivered.
    assert [headers(record)["seq"] for record in taken] == ["42", "43", "44", "45", "45"]


def test_a_redelivery_is_produced_once(rig: Rig) -> None:
    assert rig.take(in_json(), packet_id=7) is not None
    assert rig.take(in_json(), packet_id=7, flags=QOS_1 | DUP) is None
    assert rig.take(in_json(fuel=1), packet_id=7, flags=QOS_1 | DUP) is not None


# The clock


def test_undated_readings_follow_a_clock_that_jumps(rig: Rig) -> None:
    stamps = []
    for step in (0, 1800, -1800, -86_400, 86_400):
        rig.now_ns += step * SECOND
        stamps.append(int(headers(rig.take(in_json()))["time_ns"]) - rig.now_ns)
        rig.wait(3)
    assert stamps == [0] * 5
    assert rig.metric("headrace_bridge_clock_jumps") == 4
    assert rig.intake.last_jump is not None
    assert rig.intake.last_jump.seconds == 86_400


def test_a_restart_after_a_fast_clock_uses_the_right_time(make_rig: Callable[..., Rig]) -> None:
    """The clock is half an hour ahead for three seconds, then right; then a restart."""
    rig = make_rig(known=[Fingerprint(41, NOW + 1800 * SECOND, 5, 0)])
    rig.intake.recalled()
    assert headers(rig.take(in_json()))["time_ns"] == str(NOW)
    assert rig.metric("headrace_bridge_clock_jumps") == 1


def test_a_restart_within_a_second_keeps_stamps_unique(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(known=[Fingerprint(41, NOW + 500, 5, 0)])
    rig.intake.recalled()
    assert headers(rig.take(in_json()))["time_ns"] == str(NOW + 501)
    assert rig.metric("headrace_bridge_clock_jumps") == 0


# Empty messages


@pytest.mark.parametrize(
    "topic",
    [
        "emergency_generator/generator1",
        "emergency_generator/",
        "elsewhere",
        "emergency_generator/unknown/status",
        b"emergency_generator/\xff",
    ],
)
def test_an_empty_message_is_ignored_and_acknowledged(rig: Rig, topic: str | bytes) -> None:
    """An empty message clears a retained message in MQTT."""
    assert rig.take(b"", topic, packet_id=9) is None
    assert rig.in_flight.acknowledgeable() == [9]
    assert rig.metric("headrace_bridge_ignored", kind="empty") == 1
    assert rig.metric("headrace_bridge_received") == 0
    assert rig.take(b"", topic, packet_id=0, flags=0) is None
    assert rig.in_flight.acknowledgeable() == []


def test_an_empty_status_clears_a_known_device(rig: Rig) -> None:
    topic = "emergency_generator/generator1/status"
    record = rig.take(b"\xef\xbb\xbfonline", topic)
    assert record is not None
    assert record["topic"] == STATUS
    record = rig.take(b"", topic, packet_id=2)
    assert record is not None
    assert (record["topic"], record["key"], record["value"]) == (STATUS, b"generator1", None)


def test_an_unknown_status_is_a_dead_letter(rig: Rig) -> None:
    for payload in (b"away", b"\xff", b"Online"):
        record = rig.take(payload, "emergency_generator/generator1/status")
        assert record is not None
        assert (record["topic"], headers(record)["reason"]) == (LETTERS, "wrong_type")


# Limits for what a publisher can create


def test_new_devices_beyond_the_limits_are_dead_letters(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(devices=DeviceLimits(3, 100))
    topics = []
    for number in range(5):
        record = rig.take(in_json(f"g{number}"), f"emergency_generator/g{number}")
        assert record is not None
        topics.append(record["topic"])
    assert topics == [RAW, RAW, RAW, LETTERS, LETTERS]
    assert headers(rig.producer.records[-1])["reason"] == "too_many_devices"
    assert "HEADRACE_MAX_NEW_DEVICES" in headers(rig.producer.records[-1])["detail"]
    # Known devices are still accepted.
    record = rig.take(in_json("g0"), "emergency_generator/g0")
    assert record is not None
    assert record["topic"] == RAW
    record = rig.take(b"online", "emergency_generator/g9/status")
    assert record is not None
    assert (record["topic"], headers(record)["reason"]) == (LETTERS, "too_many_devices")


def test_rejected_readings_do_not_count_towards_the_limits(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(devices=DeviceLimits(1, 100))
    for number in range(10):
        rig.take(b"garbage", f"emergency_generator/bad{number}")
        rig.take(b"garbage", f"emergency_generator/bad{number}/status")
    record = rig.take(in_json("good"), "emergency_generator/good")
    assert record is not None
    assert record["topic"] == RAW


def test_a_device_with_an_unset_clock_is_listed(rig: Rig) -> None:
    record = rig.take(in_json(time=5000))
    assert headers(record)["reason"] == "time_too_old"
    assert rig.intake.drifting()["generator1"].seconds == pytest.approx(1.7e9, rel=0.01)


def flood(rig: Rig, count: int, message: Callable[[int], tuple[bytes, bytes]]) -> None:
    """Send messages; each is delivered and acknowledged."""
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        rig.intake.take([(QOS_1, number % 65_535 + 1, *message(number)) for number in numbers])
        rig.intake.settle()
        rig.recent.acknowledged(rig.in_flight.acknowledgeable())


def growth(action: Callable[[], None]) -> int:
    """Return by how many bytes the memory grows."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def numbered(number: int) -> tuple[bytes, bytes]:
    """Return a good reading of the device with this number."""
    device = b"%08d" % number
    return b"emergency_generator/" + device, GOOD.replace(b"00000000", device)


def test_a_flood_of_ids_uses_bounded_memory(make_rig: Callable[..., Rig]) -> None:
    producer = LosingProducer()
    rig = make_rig(producer, devices=DeviceLimits(1000, 2000, lambda: 0.0))
    # Memory for one cycle of packet ids, independent of the device ids.
    flood(rig, 66_000, numbered)
    grown = growth(lambda: flood(rig, 10_000, lambda number: numbered(100_000 + number)))
    assert grown < 500_000
    assert producer.topics == {RAW: 1000, LETTERS: 75_000}
    # Earlier devices are not affected.
    flood(rig, 1000, numbered)
    assert producer.topics == {RAW: 2000, LETTERS: 75_000}


@pytest.mark.long
def test_a_flood_of_300_000_accepted_ids_uses_bounded_memory(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(LosingProducer(), devices=DeviceLimits(10**6, 10**6))
    assert growth(lambda: flood(rig, 300_000, numbered)) < 100_000_000


@pytest.mark.parametrize(
    "topic",
    [
        b"emergency_generator/",
        b"elsewhere/x",
        b"emergency_generator/\xff",
        b"emergency_generator/a\t",
    ],
)
def test_a_rejected_topic_keeps_no_payload(make_rig: Callable[..., Rig], topic: bytes) -> None:
    """A cached exception that is raised again would keep every frame it passes through."""
    rig = make_rig(LosingProducer())
    payload = b"x" * 100_000
    grown = growth(lambda: flood(rig, 300, lambda _: (topic, payload + b"x")))
    assert grown < 5_000_000


def test_a_cut_payload_is_freed_with_its_message(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(LosingProducer())
    payload = Oversized(b"x" * 70_000)
    payload.size = 10**6
    gc.disable()
    try:
        rig.intake.take([(QOS_1, 1, b"emergency_generator/generator1", payload)])
        del payload
        assert not [item for item in gc.get_objects() if type(item) is Oversized]
    finally:
        gc.enable()
    assert rig.metric("headrace_bridge_rejected", reason="too_large") == 1


def test_a_long_topic_counts_as_memory(rig: Rig) -> None:
    rig.take(b"x", b"elsewhere/" + b"y" * 60_000)
    assert rig.in_flight.bytes > 120_000


# Records that Kafka refuses


def test_a_status_record_that_kafka_refuses_does_not_block(rig: Rig) -> None:
    rig.take(b"online", "emergency_generator/generator1/status")
    for _ in range(2):
        rig.producer.report_last(KafkaError.INVALID_TIMESTAMP)
        rig.intake.settle()
    record = rig.producer.records[-1]
    assert (record["topic"], headers(record)["reason"]) == (LETTERS, "kafka_refused")
    rig.producer.report_last()
    assert rig.in_flight.acknowledgeable() == [1]


def test_the_problem_names_the_topic(rig: Rig) -> None:
    rig.take(b"bad")
    rig.producer.report_last(KafkaError.UNKNOWN_TOPIC_OR_PART)
    rig.intake.settle()
    assert rig.intake.problem is not None
    assert LETTERS in rig.intake.problem
    assert "headrace provision" in rig.intake.problem
    rig.intake.discard()
    assert rig.intake.problem is None
    assert rig.in_flight.count == 0
