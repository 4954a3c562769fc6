"""What becomes of a message on its way into Kafka: its stamp, and the producer it goes by."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message

from headrace.ingest import intake as module
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.roll_call import RollCall
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.mqtt_stream import Publish
from tests.support.devices import reading

NOW = 1_700_000_000_000_000_000
MESSAGE = cast("Message", None)


class Producer:
    """Keeps what it is given, instead of Kafka."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def produce(self, topic: str, value: bytes, key: bytes, **rest: Any) -> None:
        self.records.append({"topic": topic, "value": value, "key": key, **rest})

    def report_last(self, code: int) -> None:
        self.records[-1]["on_delivery"](KafkaError(code), MESSAGE)


def published(packet_id: int) -> Publish:
    payload = json.dumps(reading("generator1", fuel=packet_id)).encode()
    return 0x02, packet_id, b"emergency_generator/generator1", payload


@pytest.fixture
def outbox() -> SimpleNamespace:
    return SimpleNamespace(usual=Producer(), alone=Producer())


@pytest.fixture
def make_intake(
    profile: Profile, codec: ReadingCodec, outbox: SimpleNamespace
) -> Callable[..., Intake]:
    def make(clock_ns: Callable[[], int] = lambda: NOW) -> Intake:
        return Intake(
            profile,
            codec,
            cast("Outbox", outbox),
            InFlight(1 << 30),
            RecentPackets(),
            RollCall({}),
            BridgeMetrics(),
            bridge="bridge",
            max_clock_drift=timedelta(seconds=5),
            clock_ns=clock_ns,
        )

    return make


def test_stamps_are_unique_and_increase_also_when_the_clock_steps_back(
    make_intake: Callable[..., Intake], outbox: SimpleNamespace
) -> None:
    clock = iter([NOW, NOW, NOW - 10**9, NOW + 10**9])
    intake = make_intake(lambda: next(clock))
    for first in (1, 4, 7, 10):
        intake.take([published(first + number) for number in range(3)])
    stamps = [int(dict(record["headers"])["time_ns"]) for record in outbox.usual.records]
    assert len(stamps) == 12
    assert stamps == sorted(set(stamps))
    assert stamps[0] == NOW
    assert stamps[9] == NOW + 10**9


def test_what_goes_alone_is_tried_again_alone(
    make_intake: Callable[..., Intake],
    outbox: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among others, another's fault would make it a dead letter."""
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    intake = make_intake()
    intake.take([published(1)])
    outbox.usual.report_last(KafkaError.INVALID_RECORD)
    intake.settle()
    assert (len(outbox.usual.records), len(outbox.alone.records)) == (1, 1)
    outbox.alone.report_last(KafkaError._MSG_TIMED_OUT)
    intake.settle()
    intake.settle()
    assert (len(outbox.usual.records), len(outbox.alone.records)) == (1, 2)
    assert outbox.alone.records[-1]["value"] == outbox.usual.records[0]["value"]
