"""Unanswered dead letters are found among all other records on their topic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.foreign import ForeignRecordError
from headrace.models.lost import LostRecords
from headrace.profile import Profile
from headrace.recovery import letters as module
from headrace.recovery.letters import (
    Answer,
    Letter,
    count_rejected,
    read_dead_letter,
    replayed_headers,
    unanswered_letters,
)
from headrace.storage.kafka import Headers, Kafka, Record
from headrace.storage.lost_records import lost_headers
from headrace.storage.records import SkippedRecords

NOBODY = cast("Kafka", None)
TOPIC = "letters"


def record(offset: int, headers: dict[str, bytes], value: bytes = b"{}") -> Record:
    return Record(TOPIC, 0, offset, b"g1", value, 1_700_000_000_000, headers)


def letter(offset: int, source: str = "", reason: str = "wrong_type") -> Record:
    headers = {"reason": reason.encode(), "size": b"2", "time_ns": b"5"}
    return record(offset, {**headers, **({"source": source.encode()} if source else {})})


def answer(offset: int, answered: Record, *, older_version: bool = False) -> Record:
    found = read_dead_letter(answered)
    assert isinstance(found, Letter)
    headers = _bytes(replayed_headers(found))
    if older_version:
        headers.pop("record", None)
    return record(offset, headers, b"")


def _bytes(headers: Headers) -> dict[str, bytes]:
    return {name: str(value).encode() for name, value in headers}


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The records of the dead-letter topic."""
    records: list[Record] = []

    def read(*_: object) -> Iterable[Record]:
        return list(records)

    monkeypatch.setattr(module, "read_topic", read)
    return records


def unanswered(profile: Profile) -> list[int]:
    return [item.record.offset for item in unanswered_letters(NOBODY, profile)]


def test_a_replay_record_answers_one_dead_letter(topic: list[Record], profile: Profile) -> None:
    first, second = letter(0), letter(1)
    topic += [first, second, answer(2, first)]
    assert unanswered(profile) == [1]


@pytest.mark.parametrize("older_version", [False, True])
def test_a_dead_letter_and_its_duplicate_are_answered_once(
    topic: list[Record], profile: Profile, *, older_version: bool
) -> None:
    """The sink died between writing and committing the dead letter, so it wrote a second one."""
    first, twin, other = letter(0, "raw/0/7"), letter(1, "raw/0/7"), letter(2, "raw/0/8")
    topic += [first, twin, other]
    assert unanswered(profile) == [0, 2]
    topic.append(answer(3, first, older_version=older_version))
    assert unanswered(profile) == [2]


def test_a_duplicate_stays_answered_after_kafka_deletes_the_first(
    topic: list[Record], profile: Profile
) -> None:
    topic += [letter(1, "raw/0/7"), answer(3, letter(0, "raw/0/7"))]
    assert unanswered(profile) == []


def test_a_duplicate_after_the_answer_is_answered(topic: list[Record], profile: Profile) -> None:
    first = letter(0, "raw/0/7")
    topic += [first, answer(1, first), letter(2, "raw/0/7")]
    assert unanswered(profile) == []


def test_foreign_records_are_skipped_and_counted(topic: list[Record], profile: Profile) -> None:
    topic += [
        record(0, {}, b"hello"),
        record(1, {"reason": b"\xff\xfe"}),
        record(2, {"reason": b"bad_mood"}),
        record(3, {"reason": b"replayed"}),
        record(4, {"reason": b"kafka_deleted", "source": b"raw/0/1"}),
        record(5, {}, b""),
        letter(6),
    ]
    skipped = SkippedRecords()
    found = list(unanswered_letters(NOBODY, profile, skipped))
    assert [item.record.offset for item in found] == [6]
    assert sum(skipped.counts.values()) == 6


def test_reports_of_lost_records_are_not_dead_letters(
    topic: list[Record], profile: Profile
) -> None:
    gap = LostRecords("raw", 2, 10, 20, "deleted")
    topic += [record(0, _bytes(lost_headers(gap)), b""), letter(1)]
    lost: list[LostRecords] = []
    found = list(unanswered_letters(NOBODY, profile, lost=lost.append))
    assert [item.record.offset for item in found] == [1]
    assert [(item.partition, item.start, item.stop) for item in lost] == [(2, 10, 20)]


@pytest.mark.parametrize("stamp", [b"", b"soon", b"-1", b"9" * 5000, "\u0661".encode()])
def test_a_dead_letter_without_a_valid_time_has_its_arrival_time(stamp: bytes) -> None:
    found = read_dead_letter(record(0, {"reason": b"wrong_type", "time_ns": stamp}))
    assert isinstance(found, Letter)
    assert (found.time_ns, found.dated) == (1_700_000_000_000_000_000, False)


@given(
    st.dictionaries(
        st.sampled_from(
            ["reason", "source", "size", "time_ns", "record", "offset_start", "offset_stop"]
        ),
        st.one_of(
            st.binary(),
            st.sampled_from([b"replayed", b"kafka_deleted", b"wrong_type", b"raw/0/1", b"5"]),
        ),
    ),
    st.binary(),
)
def test_any_record_is_read_or_foreign(headers: dict[str, bytes], value: bytes) -> None:
    try:
        found = read_dead_letter(record(0, headers, value))
    except ForeignRecordError:
        return
    assert isinstance(found, Letter | Answer | LostRecords)


def test_only_rejected_readings_count_as_rejected(
    topic: list[Record], profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a replay of three dead letters, three readings count as rejected, not more."""

    class Closable:
        def close(self) -> None:
            """Nothing is open."""

    class KafkaWithAConsumer:
        def consumer(self, _: str) -> Closable:
            return Closable()

    offsets = iter([{0: 0}, {0: 8}])
    monkeypatch.setattr(module, "offsets_at", lambda *_: next(offsets))
    rejected = [letter(0), letter(1, "raw/0/7"), letter(2, "raw/0/7"), letter(3, "raw/0/8")]
    gap = LostRecords("raw", 2, 10, 20, "deleted")
    topic += [
        *rejected,
        answer(4, rejected[0]),
        answer(5, rejected[1]),
        record(6, _bytes(lost_headers(gap)), b""),
        record(7, {}, b"hello"),
    ]
    now = datetime.now(UTC)
    assert count_rejected(cast("Kafka", KafkaWithAConsumer()), profile, now, now) == 3
