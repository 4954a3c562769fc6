"""Acknowledgements are sent in the broker's order."""

from __future__ import annotations

from typing import cast

from confluent_kafka import KafkaError, Message

from headrace.ingest.inflight import InFlight, InFlightMessage


class Reported:
    """The part of a delivered message that the code reads."""

    def __init__(self, offset: int = 5) -> None:
        self._offset = offset

    def topic(self) -> str:
        return "raw"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return self._offset


def report(message: InFlightMessage, error: KafkaError | None = None, offset: int = 5) -> None:
    message.report(error, cast("Message", Reported(offset)))


def add(in_flight: InFlight, *packet_ids: int) -> list[InFlightMessage]:
    return [in_flight.add(number, 100) for number in packet_ids]


def test_no_message_is_acknowledged_before_kafka_confirms_it() -> None:
    in_flight = InFlight(1 << 20)
    add(in_flight, 1, 2)
    assert in_flight.acknowledgeable() == []


def test_messages_are_acknowledged_in_the_order_of_the_broker() -> None:
    in_flight = InFlight(1 << 20)
    first, second, third = add(in_flight, 1, 2, 3)
    report(second)
    assert in_flight.acknowledgeable() == []
    report(first)
    assert in_flight.acknowledgeable() == [1, 2]
    report(third)
    assert in_flight.acknowledgeable() == [3]


def test_undelivered_messages_are_not_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    first, second = add(in_flight, 1, 2)
    report(first, KafkaError(KafkaError._MSG_TIMED_OUT))
    report(second)
    assert in_flight.acknowledgeable() == []
    assert [item[0] for item in in_flight.undelivered] == [first]


def test_qos_0_is_counted_but_not_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    (message,) = add(in_flight, 0)
    assert in_flight.count == 1
    report(message)
    assert (in_flight.count, in_flight.bytes, in_flight.acknowledgeable()) == (0, 0, [])


def test_bytes_and_messages_are_limited() -> None:
    by_bytes = InFlight(3000)
    assert not by_bytes.full
    messages = [by_bytes.add(number, 2000) for number in (1, 2)]
    assert by_bytes.full
    report(messages[0])
    report(messages[1])
    assert by_bytes.has_room
    by_number = InFlight(1 << 40)
    add(by_number, *range(1, 16_385))
    assert by_number.full


def test_after_a_lost_connection_only_redelivered_messages_are_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    first, second = add(in_flight, 1, 2)
    report(first)
    in_flight.connection_lost()
    assert in_flight.acknowledgeable() == []
    in_flight.add_redelivered(first)
    in_flight.add_redelivered(second)
    assert in_flight.acknowledgeable() == [1]
    report(second)
    assert in_flight.acknowledgeable() == [2]


def test_offsets_of_acknowledged_messages_are_recorded() -> None:
    in_flight = InFlight(1 << 20)
    messages = [in_flight.add(number + 1, 10) for number in range(130)]
    for number, message in enumerate(messages):
        report(message, offset=1000 + number)
    in_flight.acknowledgeable()
    # Every 64th offset is recorded: the 64th and the 128th.
    assert in_flight.acknowledged_to == {("raw", 1): 1127}


def test_an_ignored_message_is_acknowledged_in_order() -> None:
    in_flight = InFlight(1 << 20)
    (first,) = add(in_flight, 1)
    in_flight.add_ignored(2)
    in_flight.add_ignored(0)
    assert (in_flight.count, in_flight.acknowledgeable()) == (1, [])
    report(first)
    assert (in_flight.count, in_flight.acknowledgeable()) == (0, [1, 2])
