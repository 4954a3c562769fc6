"""Acknowledgements in order, and recognising what is sent again."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import KafkaError, Message

from headrace.ingest.inflight import Flight, InFlight
from headrace.ingest.redelivery import MEMORY, Fingerprint, RecentPackets, digest_of


class Reported:
    """A delivery report's message, as far as a flight looks at it."""

    def __init__(self, offset: int = 5) -> None:
        self._offset = offset

    def topic(self) -> str:
        return "raw"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return self._offset


def report(flight: Flight, error: KafkaError | None = None, offset: int = 5) -> None:
    flight.report(error, cast("Message", Reported(offset)))


def take_off(in_flight: InFlight, *packet_ids: int) -> list[Flight]:
    return [in_flight.took_off(number, 100) for number in packet_ids]


def test_nothing_is_acknowledged_before_kafka_has_it() -> None:
    in_flight = InFlight(1 << 20)
    take_off(in_flight, 1, 2)
    assert in_flight.acknowledgeable() == []


def test_acknowledged_in_the_broker_s_order() -> None:
    in_flight = InFlight(1 << 20)
    first, second, third = take_off(in_flight, 1, 2, 3)
    report(second)
    assert in_flight.acknowledgeable() == []
    report(first)
    assert in_flight.acknowledgeable() == [1, 2]
    report(third)
    assert in_flight.acknowledgeable() == [3]


def test_what_kafka_did_not_take_is_not_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    first, second = take_off(in_flight, 1, 2)
    report(first, KafkaError(KafkaError._MSG_TIMED_OUT))
    report(second)
    assert in_flight.acknowledgeable() == []
    assert [item[0] for item in in_flight.undelivered] == [first]


def test_qos_0_is_counted_but_not_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    (flight,) = take_off(in_flight, 0)
    assert in_flight.count == 1
    report(flight)
    assert (in_flight.count, in_flight.bytes, in_flight.acknowledgeable()) == (0, 0, [])


def test_full_by_bytes_and_by_number() -> None:
    by_bytes = InFlight(3000)
    assert not by_bytes.full
    flights = [by_bytes.took_off(number, 2000) for number in (1, 2)]
    assert by_bytes.full
    report(flights[0])
    report(flights[1])
    assert by_bytes.has_room
    by_number = InFlight(1 << 40)
    take_off(by_number, *range(1, 16_385))
    assert by_number.full


def test_after_a_lost_connection_only_what_comes_again_is_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    first, second = take_off(in_flight, 1, 2)
    report(first)
    in_flight.connection_lost()
    assert in_flight.acknowledgeable() == []
    in_flight.came_again(first)
    in_flight.came_again(second)
    assert in_flight.acknowledgeable() == [1]
    report(second)
    assert in_flight.acknowledgeable() == [2]


def test_place_of_what_is_acknowledged() -> None:
    in_flight = InFlight(1 << 20)
    flights = [in_flight.took_off(number + 1, 10) for number in range(130)]
    for number, flight in enumerate(flights):
        report(flight, offset=1000 + number)
    in_flight.acknowledgeable()
    # Every 64th is noted, the 64th and the 128th.
    assert in_flight.acknowledged_to == {("raw", 1): 1127}


def recent(*payloads: tuple[int, bytes]) -> RecentPackets:
    return RecentPackets(
        Fingerprint(taken, packet_id, digest_of(payload))
        for taken, (packet_id, payload) in enumerate(payloads)
    )


def test_found_by_packet_id_and_payload() -> None:
    packets = recent((7, b"a"), (8, b"b"))
    assert packets.find(7, b"a") is not None
    assert packets.find(7, b"b") is None
    assert packets.find(9, b"a") is None


def test_found_again_is_done_already() -> None:
    flight = recent((7, b"a")).find(7, b"a")
    assert flight is not None
    assert flight.done


def test_found_again_waits_for_kafka() -> None:
    packets, in_flight = recent(), InFlight(1 << 20)
    flight = in_flight.took_off(7, 1)
    packets.remember(flight, b"a")
    in_flight.connection_lost()
    assert packets.find(7, b"a") is flight
    assert not flight.done


def test_acknowledged_may_come_again() -> None:
    packets, in_flight = recent(), InFlight(1 << 20)
    flight = in_flight.took_off(7, 1)
    packets.remember(flight, b"a")
    packets.acknowledged([7])
    again = packets.find(7, b"a")
    assert again is not None
    in_flight.connection_lost()
    in_flight.came_again(again)
    assert in_flight.acknowledgeable() == [7]


def test_the_same_payload_a_round_of_ids_ago_is_another_message() -> None:
    packets = recent((1, b"same"))
    in_flight = InFlight(1 << 40)
    for number in range(MEMORY - 1):
        packets.remember(in_flight.took_off(2 + number, 1), b"other")
    assert packets.find(1, b"same") is not None
    packets.remember(in_flight.took_off(1 + MEMORY, 1), b"other")
    assert packets.find(1, b"same") is None


def test_a_lost_session_counts_ids_anew() -> None:
    packets = recent((1, b"a"))
    packets.forget()
    assert packets.find(1, b"a") is None


@pytest.mark.parametrize("size", [65_536, 65_537, 1_000_000])
def test_digest_sees_what_a_dead_letter_keeps(size: int) -> None:
    payload = b"x" * size
    assert digest_of(payload) == digest_of(payload[:65_536])
