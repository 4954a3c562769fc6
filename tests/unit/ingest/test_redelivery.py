"""Redeliveries are recognised by packet id and payload, in order of sequence numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest import recorded_packets as module
from headrace.ingest.devices import DeviceLimits
from headrace.ingest.fingerprints import Fingerprint, digest_of, fingerprint_of
from headrace.ingest.inflight import InFlight
from headrace.ingest.recorded_packets import recorded_packets
from headrace.ingest.redelivery import MEMORY, RecentPackets
from headrace.models.foreign import ForeignRecordError
from headrace.storage.kafka import Kafka, Record
from headrace.storage.records import SkippedRecords


def recent(*payloads: tuple[int, bytes]) -> RecentPackets:
    return RecentPackets(
        Fingerprint(sequence, 0, packet_id, digest_of(payload))
        for sequence, (packet_id, payload) in enumerate(payloads, 1)
    )


def test_a_redelivery_is_found_by_packet_id_and_payload() -> None:
    packets = recent((7, b"a"), (8, b"b"))
    assert packets.find(7, b"a") is not None
    assert packets.find(7, b"b") is None
    assert packets.find(9, b"a") is None


def test_a_redelivery_of_a_stored_reading_is_acknowledged() -> None:
    found = recent((7, b"a")).find(7, b"a")
    assert found is not None
    assert found.done


def test_a_redelivery_of_a_pending_reading_waits_for_kafka() -> None:
    packets, in_flight = recent(), InFlight(1 << 20)
    message = in_flight.add(7, 1)
    packets.remember(message, b"a")
    in_flight.connection_lost()
    assert packets.find(7, b"a") is message
    assert not message.done


def test_an_acknowledged_reading_can_be_redelivered() -> None:
    packets, in_flight = recent(), InFlight(1 << 20)
    packets.remember(in_flight.add(7, 1), b"a")
    packets.acknowledged([7])
    again = packets.find(7, b"a")
    assert again is not None
    in_flight.connection_lost()
    in_flight.add_redelivered(again)
    assert in_flight.acknowledgeable() == [7]


def test_the_same_packet_id_after_a_full_cycle_is_another_message() -> None:
    packets = recent((1, b"same"))
    in_flight = InFlight(1 << 40)
    for number in range(MEMORY - 1):
        packets.remember(in_flight.add(2 + number, 1), b"other")
    assert packets.find(1, b"same") is not None
    packets.remember(in_flight.add(1 + MEMORY, 1), b"other")
    assert packets.find(1, b"same") is None


def test_a_lost_session_restarts_packet_ids() -> None:
    packets = recent((1, b"a"))
    packets.forget()
    assert packets.find(1, b"a") is None


@pytest.mark.parametrize("size", [65_536, 65_537, 1_000_000])
def test_the_digest_covers_what_a_dead_letter_keeps(size: int) -> None:
    payload = b"x" * size
    assert digest_of(payload) == digest_of(payload[:65_536])


def test_an_ignored_message_uses_its_packet_id() -> None:
    packets = recent((7, b"a"))
    packets.ignored(7)
    assert packets.find(7, b"a") is None


def test_ignored_messages_count_towards_a_cycle_of_packet_ids() -> None:
    packets = recent((1, b"same"))
    for number in range(MEMORY - 1):
        packets.ignored(2 + number)
    assert packets.find(1, b"same") is not None
    packets.ignored(1 + MEMORY)
    assert packets.find(1, b"same") is None


def record(packet_id: Any, seq: Any = None, taken: Any = 5, **more: Any) -> Record:
    named = {"bridge": "b", "packet_id": packet_id, "seq": seq, "taken_ns": taken, **more}
    headers = {
        name: value if isinstance(value, bytes) else str(value).encode()
        for name, value in named.items()
        if value is not None
    }
    return Record("raw", 0, 0, b"g1", b"payload", 0, headers)


def test_records_are_ordered_by_number_and_not_by_time() -> None:
    """The clock was half an hour ahead when the older message arrived."""
    older = fingerprint_of(record(7, 1, taken=3600), b"b")
    newer = fingerprint_of(record(7, 2, taken=1800)._replace(value=b"other"), b"b")
    assert older is not None
    assert newer is not None
    packets = RecentPackets([newer, older])
    assert packets.find(7, b"other") is not None
    assert packets.find(7, b"payload") is None
    assert packets.newest == newer


def test_numbers_continue_over_a_restart() -> None:
    packets = RecentPackets([Fingerprint(41, 0, 7, 1), Fingerprint(40, 9, 8, 1)])
    assert packets.remember(InFlight(1 << 20).add(9, 1), b"a") == 42
    packets.forget()
    assert packets.remember(InFlight(1 << 20).add(9, 1), b"a") == 43
    packets.reset([])
    assert packets.remember(InFlight(1 << 20).add(9, 1), b"a") == 44


def test_records_of_an_older_version_come_before_numbered_ones() -> None:
    old = [fingerprint_of(record(number, taken=number), b"b") for number in (1, 2)]
    numbered = fingerprint_of(record(2, 1, taken=0)._replace(value=b"new"), b"b")
    packets = RecentPackets([item for item in (numbered, *old) if item is not None])
    assert packets.find(1, b"payload") is not None
    assert packets.find(2, b"new") is not None
    only_old = RecentPackets([item for item in old if item is not None])
    assert only_old.find(2, b"payload") is not None
    assert only_old.remember(InFlight(1 << 20).add(3, 1), b"a") == 3


@pytest.mark.parametrize(
    "foreign",
    [
        record("soon"),
        record(0x10000),
        record(-1),
        record("00"),
        record("9" * 5000),
        record("\u0663"),
        record(b"\xff"),
        record(b""),
        record(7, "one"),
        record(7, "9" * 19),
        record(7, "9" * 5000),
        record(7, ""),
        record(7, 1, taken="later"),
        record(7, 1, taken="9" * 30),
    ],
)
def test_a_foreign_record_with_the_name_of_the_bridge_is_skipped(
    foreign: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = {"raw": [foreign, record(7, 1)], "dlq": [record(8, 2), foreign]}

    def read_topic(_: Kafka, topic: str, *__: object, **___: object) -> Iterator[Record]:
        return iter(topics[topic])

    class EverythingFromTheStart:
        def start_of(self, topic: str) -> dict[int, int]:
            del topic
            return {}

    monkeypatch.setattr(module, "read_topic", read_topic)
    skipped, devices = SkippedRecords(), DeviceLimits()
    found = recorded_packets(
        cast("Kafka", None),
        EverythingFromTheStart(),
        ("raw", "dlq"),
        "b",
        skipped=skipped,
        devices=devices,
    )
    assert [item.packet_id for item in found] == [8, 7]
    assert sum(skipped.counts.values()) == 2
    assert b"g1" in devices
    RecentPackets(found)


def test_records_of_other_bridges_are_skipped() -> None:
    assert fingerprint_of(record("soon", bridge="other"), b"b") is None
    assert fingerprint_of(record(0), b"b") is None
    assert fingerprint_of(record(7, source="raw/0/5"), b"b") is None
    assert fingerprint_of(record(None), b"b") is None


_HEADER = st.binary(max_size=25) | st.integers().map(str).map(str.encode)


@given(
    headers=st.fixed_dictionaries(
        {"bridge": st.just(b"b")},
        optional={"packet_id": _HEADER, "seq": _HEADER, "taken_ns": _HEADER, "time_ns": _HEADER},
    )
)
def test_any_headers_of_the_raw_topic_are_read_or_foreign(headers: dict[str, bytes]) -> None:
    try:
        found = fingerprint_of(record(1)._replace(headers=headers), b"b")
    except ForeignRecordError:
        return
    if found is not None:
        packets = RecentPackets([found])
        packets.remember(InFlight(1 << 20).add(1, 1), b"a")
