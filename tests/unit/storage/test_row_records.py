"""Rows as records on their topic."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.row import StoredRow, row_content
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.storage.row_records import read_row, row_value, starts_within

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
WINDOWS = WindowRange(NOON, NOON + 3 * MINUTE, MINUTE)


def value_of(profile: Profile, start: datetime, device: str = "generator1") -> bytes:
    row = StoredRow(device, start, {"fuel": 1.5, "alarm": "refuel", "readings": 4})
    return row_value(row_content(profile, row), 2)


def test_a_written_row_is_read_unchanged(profile: Profile) -> None:
    row = read_row(profile, b"generator1", value_of(profile, NOON))
    assert row.key == ("generator1", NOON)
    assert row.revision == 2
    assert row.content["window_end"] == "2026-01-31T12:01:00Z"
    assert row.content["fuel"] == 1.5
    assert row.content["region"] == "US"


@pytest.mark.parametrize(
    ("minutes", "within"), [(-1, False), (0, True), (2, True), (3, False), (-1440 * 40, False)]
)
def test_rows_are_assigned_to_their_range(profile: Profile, minutes: int, *, within: bool) -> None:
    value = value_of(profile, NOON + minutes * MINUTE)
    assert starts_within(WINDOWS)(value) is within


@pytest.mark.parametrize("count", [1, 2, 60, 1440, 100_000])
@pytest.mark.parametrize(
    "begin", [NOON, NOON + 59 * MINUTE, NOON + timedelta(hours=11, minutes=59)]
)
def test_a_range_includes_its_first_and_last_row(
    profile: Profile, begin: datetime, count: int
) -> None:
    within = starts_within(WindowRange(begin, begin + count * MINUTE, MINUTE))
    found = [within(value_of(profile, begin + number * MINUTE)) for number in (0, count - 1)]
    assert found == [True, True]
    assert not within(value_of(profile, begin - MINUTE))
    assert not within(value_of(profile, begin + count * MINUTE))


def test_a_device_id_is_not_mistaken_for_a_window(profile: Profile) -> None:
    device = '"window_start":"2026-01-31T12:00:00Z'
    assert not starts_within(WINDOWS)(value_of(profile, NOON - MINUTE, device))


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"window_start":"', b"\xff"])
def test_a_record_that_is_not_a_row_has_no_window(value: bytes) -> None:
    assert not starts_within(WINDOWS)(value)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"generator1", b"", ForeignReason.EMPTY),
        (b"generator1", b"hello", ForeignReason.NOT_JSON),
        (b"generator1", b'{"window_start":"2026-01-31T12:00:00Z', ForeignReason.NOT_JSON),
        (b"generator1", b'{"a":' * 50_000, ForeignReason.NOT_JSON),
        (b"generator1", b"[]", ForeignReason.NOT_AN_OBJECT),
        (b"generator1", b"{}", ForeignReason.MISSING_FIELD),
        (b"generator1", b'{"generatorID":"generator1"}', ForeignReason.MISSING_FIELD),
        (b"generator2", b'{"generatorID":"generator1"}', ForeignReason.WRONG_KEY),
    ],
)
def test_records_of_other_programs_are_foreign(
    profile: Profile, key: bytes, value: bytes, reason: ForeignReason
) -> None:
    with pytest.raises(ForeignRecordError) as caught:
        read_row(profile, key, value)
    assert caught.value.reason is reason


@pytest.mark.parametrize("revision", [None, -1, 10**40, 1.5, "0", True, []])
def test_a_row_without_a_numeric_revision_is_foreign(profile: Profile, revision: Any) -> None:
    content = {**json.loads(value_of(profile, NOON)), "revision": revision}
    with pytest.raises(ForeignRecordError, match="revision is"):
        read_row(profile, b"generator1", json.dumps(content).encode())


@given(key=st.binary(), value=st.binary())
def test_any_bytes_are_a_row_or_foreign(profile: Profile, key: bytes, value: bytes) -> None:
    _reads(profile, key, value)


@given(cut=st.integers(0, 500), place=st.integers(0, 500), byte=st.integers(0, 255))
def test_a_damaged_row_is_a_row_or_foreign(
    profile: Profile, cut: int, place: int, byte: int
) -> None:
    value = bytearray(value_of(profile, NOON))
    if place < len(value):
        value[place] = byte
    _reads(profile, b"generator1", bytes(value))
    _reads(profile, b"generator1", bytes(value[:cut]))


def _reads(profile: Profile, key: bytes, value: bytes) -> None:
    try:
        row = read_row(profile, key, value)
    except ForeignRecordError:
        return
    assert row.key[0].encode() == key
    assert isinstance(row.revision, int)
