"""Fake Kafka producers for the unit tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message

from headrace.ingest.outbox import Outbox

__all__ = [
    "KeepingProducer",
    "LosingProducer",
    "Record",
    "RefusingProducer",
    "ReportedFatalError",
    "outbox_of",
]

#: A produced record.
Record = dict[str, Any]
MESSAGE = cast("Message", SimpleNamespace(topic=lambda: "t", partition=lambda: 0, offset=lambda: 1))


class ReportedFatalError(KafkaError):
    """The error that librdkafka reports after a producer has failed permanently."""

    def fatal(self) -> bool:
        return True


class KeepingProducer:
    """Keeps records and sends delivery reports only when the test asks for them."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **rest: Any) -> None:
        self.records.append({"topic": topic, "value": value, "key": key, **rest})

    def report_last(self, code: int | None = None) -> None:
        self.report(self.records[-1], code)

    def report(self, record: Record, code: int | None = None) -> None:
        record["on_delivery"](None if code is None else KafkaError(code), MESSAGE)


class LosingProducer(KeepingProducer):
    """Confirms every record at once and keeps none, for tests with millions of records."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: dict[str, int] = {}

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **rest: Any) -> None:
        del value, key
        self.topics[topic] = self.topics.get(topic, 0) + 1
        rest["on_delivery"](None, MESSAGE)


class RefusingProducer(KeepingProducer):
    """Refuses every record of some topics, immediately or in the delivery report.

    Parameters
    ----------
    refused
        Error code by topic. Other records are confirmed.
    at_once
        Raise instead of reporting.
    """

    def __init__(self, refused: dict[str, int], *, at_once: bool = False) -> None:
        super().__init__()
        self.refused = refused
        self.at_once = at_once
        self.confirmed: list[Record] = []

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **rest: Any) -> None:
        super().produce(topic, value, key, **rest)
        code = self.refused.get(topic)
        if code is not None and self.at_once:
            raise KafkaException(KafkaError(code))
        if code is None:
            self.confirmed.append(self.records[-1])
        self.report_last(code)


def outbox_of(batching: KeepingProducer, isolated: KeepingProducer | None = None) -> Outbox:
    """Return an outbox with these producers."""
    outbox = SimpleNamespace(
        batching=batching,
        isolated=isolated or batching,
        poll=lambda _: None,
        discard=lambda: None,
    )
    return cast("Outbox", outbox)
