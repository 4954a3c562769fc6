"""Every way in which a real librdkafka producer reports a fatal error is recognised."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer

from headrace.errors import FatalError
from headrace.ingest.dead_letters import DeadLetters
from headrace.ingest.health import Health
from headrace.ingest.metrics import SinkMetrics
from headrace.ingest.outbox import Outbox
from headrace.profile import Profile
from headrace.storage.kafka import Kafka, kafka_errors

OUT_OF_ORDER = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
#: The handle of librdkafka comes after the header of the Python object.
HANDLE_OFFSET = object.__basicsize__


def librdkafka() -> ctypes.CDLL:
    maps = Path("/proc/self/maps").read_text().splitlines()
    (path,) = {line.split()[-1] for line in maps if "librdkafka" in line}
    return ctypes.CDLL(path)


def fail_for_good(producer: Producer) -> None:
    """Cause a fatal error in a producer with librdkafka's function for tests."""
    handle = ctypes.c_void_p.from_address(id(producer) + HANDLE_OFFSET)
    assert librdkafka().rd_kafka_test_fatal_error(handle, OUT_OF_ORDER, b"made up") == 0


@pytest.fixture
def outbox() -> Outbox:
    """An outbox whose producers have no Kafka."""
    return Outbox(Kafka({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}), 1 << 20)


def test_poll_raises_a_fatal_error(outbox: Outbox) -> None:
    fail_for_good(outbox.batching)
    with pytest.raises(FatalError, match="made up"):
        outbox.poll(0.1)


def test_a_fatal_error_of_the_isolated_producer_is_raised_too(outbox: Outbox) -> None:
    fail_for_good(outbox.isolated)
    with pytest.raises(FatalError, match="made up"):
        outbox.poll(0.1)


def test_produce_raises_a_fatal_error(outbox: Outbox) -> None:
    fail_for_good(outbox.batching)
    with pytest.raises(FatalError, match="_FATAL"), kafka_errors():
        outbox.batching.produce("topic", b"value")


def test_a_record_that_was_queued_is_not_reported_as_delivered(outbox: Outbox) -> None:
    reports: list[KafkaError | None] = []

    def report(error: KafkaError | None, message: Message) -> None:
        del message
        reports.append(error)

    outbox.batching.produce("topic", b"value", on_delivery=report)
    fail_for_good(outbox.batching)
    with pytest.raises(FatalError):
        outbox.poll(0.1)
    outbox.batching.purge()
    outbox.batching.flush(1)
    assert all(error is not None for error in reports)


def test_discard_raises_a_fatal_error(outbox: Outbox) -> None:
    fail_for_good(outbox.batching)
    with pytest.raises(FatalError, match="made up"):
        outbox.discard()


def test_dead_letters_are_closed_after_a_fatal_error(profile: Profile) -> None:
    kafka = Kafka({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    letters = DeadLetters(kafka, profile, SinkMetrics(), Health("sink", ["dead_letters"]))
    fail_for_good(letters._producer)
    letters.close()
