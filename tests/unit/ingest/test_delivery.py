"""Records that Kafka refuses are retried, isolated, dead-lettered, or end the process."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from headrace.errors import FatalError, HeadraceError
from headrace.ingest.delivery import Delivery
from headrace.ingest.inflight import InFlight, InFlightMessage
from headrace.ingest.outbox import Outgoing
from tests.support.producers import (
    MESSAGE,
    KeepingProducer,
    RefusingProducer,
    ReportedFatalError,
    outbox_of,
)

MISSING = KafkaError.UNKNOWN_TOPIC_OR_PART
TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE


class Rig:
    """A delivery with a clock that the test moves."""

    def __init__(self, producer: KeepingProducer, isolated: KeepingProducer | None = None) -> None:
        self.now = 0.0
        self.in_flight = InFlight(1 << 30)
        self.refused: list[tuple[InFlightMessage, str]] = []
        self.delivery = Delivery(
            outbox_of(producer, isolated), self.in_flight, "dlq", self._refuse, lambda: self.now
        )

    def _refuse(self, message: InFlightMessage, outgoing: Outgoing, error: HeadraceError) -> None:
        self.refused.append((message, str(error)))
        self.delivery.produce(message, Outgoing("dlq", outgoing.value, None, []))

    def send(self, topic: str = "raw", packet_id: int = 1, value: bytes = b"v") -> None:
        message = self.in_flight.add(packet_id, len(value))
        self.delivery.produce(message, Outgoing(topic, value, b"k", []))

    def settle(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.delivery.settle()


def test_a_missing_dead_letter_topic_blocks_only_later_acknowledgements() -> None:
    """MQTT needs acknowledgements in order: those before the bad reading are still sent."""
    producer = RefusingProducer({"dlq": MISSING})
    rig = Rig(producer)
    with capture_logs() as logs:
        rig.send(packet_id=1)
        rig.send("dlq", packet_id=2)
        for number in range(3, 100):
            rig.send(packet_id=number)
        for _ in range(20):
            rig.settle(1.5)
    assert rig.in_flight.acknowledgeable() == [1]
    assert sum(record["topic"] == "raw" for record in producer.confirmed) == 98
    assert rig.delivery.problem is not None
    assert "topic dlq" in rig.delivery.problem
    assert "headrace provision" in rig.delivery.problem
    assert [entry["event"] for entry in logs] == ["Kafka does not accept records, retrying"]


def test_delivery_recovers_when_the_topic_exists() -> None:
    producer = RefusingProducer({"dlq": MISSING})
    rig = Rig(producer)
    rig.send("dlq", packet_id=1)
    rig.send(packet_id=2)
    rig.settle(1.5)
    producer.refused.clear()
    with capture_logs() as logs:
        rig.settle(1.5)
        rig.settle(1.5)
    assert rig.in_flight.acknowledgeable() == [1, 2]
    assert rig.delivery.problem is None
    assert [entry["event"] for entry in logs] == ["Kafka accepts records again"]


def test_the_problem_of_one_topic_does_not_hide_that_of_another() -> None:
    producer = RefusingProducer({"dlq": MISSING, "raw": KafkaError.TOPIC_AUTHORIZATION_FAILED})
    rig = Rig(producer)
    rig.send("dlq")
    rig.send("raw")
    rig.settle(1.5)
    first = rig.delivery.problem
    assert first is not None
    assert "topic dlq" in first
    del producer.refused["dlq"]
    for _ in range(3):
        rig.settle(1.5)
    assert rig.delivery.problem is not None
    assert "topic raw" in rig.delivery.problem


def test_an_unavailable_server_is_not_a_problem_of_one_topic() -> None:
    producer = RefusingProducer({"raw": KafkaError._TRANSPORT})
    rig = Rig(producer)
    rig.send()
    rig.settle()
    assert rig.delivery.problem is None
    rig.settle(1.5)
    assert len(producer.records) == 2


def test_an_isolated_record_is_retried_in_isolation() -> None:
    """In a batch, another record's error would make it a dead letter."""
    batching, isolated = KeepingProducer(), KeepingProducer()
    rig = Rig(batching, isolated)
    rig.send()
    batching.report_last(KafkaError.INVALID_RECORD)
    rig.settle()
    assert (len(batching.records), len(isolated.records)) == (1, 1)
    isolated.report_last(KafkaError._MSG_TIMED_OUT)
    rig.settle()
    rig.settle(1.5)
    assert (len(batching.records), len(isolated.records)) == (1, 2)
    assert not rig.refused


@pytest.mark.parametrize("at_once", [False, True])
def test_a_refused_record_becomes_a_dead_letter(*, at_once: bool) -> None:
    producer = RefusingProducer({"raw": TOO_LARGE}, at_once=at_once)
    rig = Rig(producer)
    rig.send()
    rig.settle()
    rig.settle()
    assert "MSG_SIZE_TOO_LARGE" in rig.refused[0][1]
    assert producer.confirmed[-1]["topic"] == "dlq"
    assert rig.in_flight.acknowledgeable() == [1]


class TopicThatTakesLittle(RefusingProducer):
    """Refuses dead letters longer than 10 bytes."""

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **rest: object) -> None:
        self.refused = {"dlq": TOO_LARGE} if len(value or b"") > 10 else {}
        super().produce(topic, value, key, **rest)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_refused_dead_letter_is_shortened(*, at_once: bool) -> None:
    producer = TopicThatTakesLittle({}, at_once=at_once)
    rig = Rig(producer)
    rig.send("dlq", value=b"x" * 100)
    for _ in range(10):
        rig.settle()
    assert producer.confirmed[-1]["value"] == b"x" * 6
    assert rig.in_flight.acknowledgeable() == [1]


def test_a_dead_letter_that_kafka_keeps_refusing_is_a_problem() -> None:
    rig = Rig(RefusingProducer({"dlq": TOO_LARGE}))
    rig.send("dlq", value=b"xx")
    for _ in range(5):
        rig.settle()
    assert rig.delivery.problem is not None
    assert "topic dlq" in rig.delivery.problem


def test_a_fatal_error_ends_everything() -> None:
    """Nothing is retried or acknowledged; a new process starts again."""
    producer = KeepingProducer()
    rig = Rig(producer)
    rig.send(packet_id=1)
    rig.send(packet_id=2)
    producer.records[0]["on_delivery"](
        ReportedFatalError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER), MESSAGE
    )
    with pytest.raises(FatalError):
        rig.settle()
    assert rig.in_flight.acknowledgeable() == []


def test_a_failed_producer_accepts_nothing() -> None:
    rig = Rig(RefusingProducer({"raw": KafkaError._FATAL}, at_once=True))
    with pytest.raises(FatalError):
        rig.send()


class ProducerWithAFullQueue(KeepingProducer):
    """Accepts a record at the third attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **rest: Any) -> None:
        self.attempts += 1
        if self.attempts % 3:
            msg = "Local: Queue full"
            raise BufferError(msg)
        super().produce(topic, value, key, **rest)


def test_a_full_queue_is_retried_until_accepted() -> None:
    producer = ProducerWithAFullQueue()
    rig = Rig(producer)
    for number in range(1, 4):
        rig.send(packet_id=number, value=b"%d" % number)
    assert [record["value"] for record in producer.records] == [b"1", b"2", b"3"]
    assert rig.refused == []
