"""Alarm changes as records on their topic."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.alarm import AlarmChange, AlarmState, PublishedChange
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.profile import Profile
from headrace.storage.alarm_records import change_value, read_change

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
CHANGE = AlarmChange(
    "generator1", "fuel", "refuel", AlarmState.RAISED, NOON, NOON + timedelta(minutes=1)
)
KEY = b"generator1"

#: Values that a field of a JSON object may have.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def test_a_written_change_is_read_unchanged(profile: Profile) -> None:
    value = change_value(profile, CHANGE, 3)
    assert read_change(profile, KEY, value) == PublishedChange(CHANGE, 3)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", ForeignReason.EMPTY),
        (b"hello", ForeignReason.NOT_JSON),
        (b"\xff\xfe{", ForeignReason.NOT_JSON),
        (b'{"generatorID":"generator1"', ForeignReason.NOT_JSON),
        (b"[" * 100_000, ForeignReason.NOT_JSON),
        (b"NaN", ForeignReason.NOT_JSON),
        (b"[]", ForeignReason.NOT_AN_OBJECT),
        (b"1" * 5000, ForeignReason.NOT_JSON),
        (b"null", ForeignReason.NOT_AN_OBJECT),
        (b"{}", ForeignReason.MISSING_FIELD),
    ],
)
def test_records_of_other_programs_are_foreign(
    profile: Profile, value: bytes, reason: ForeignReason
) -> None:
    with pytest.raises(ForeignRecordError) as caught:
        read_change(profile, KEY, value)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generatorID", 1),
        ("generatorID", None),
        ("rule", None),
        ("alarm", 5),
        ("state", "on"),
        ("state", []),
        ("since", "noon"),
        ("since", "0001-01-01T00:00:00+23:00"),
        ("since", "2026-06-01T12:00:00"),
        ("window_start", 1780315200),
        ("revision", -1),
        ("revision", True),
        ("revision", 1.0),
        ("revision", "1"),
        ("revision", 10**30),
    ],
)
def test_a_wrong_value_is_foreign(profile: Profile, name: str, value: Any) -> None:
    content = {**json.loads(change_value(profile, CHANGE, 0)), name: value}
    with pytest.raises(ForeignRecordError) as caught:
        read_change(profile, KEY, json.dumps(content).encode())
    assert caught.value.reason is ForeignReason.WRONG_VALUE


@pytest.mark.parametrize("key", [b"", b"generator2", b"generator1 ", b"\xff"])
def test_a_key_of_another_device_is_foreign(profile: Profile, key: bytes) -> None:
    with pytest.raises(ForeignRecordError) as caught:
        read_change(profile, key, change_value(profile, CHANGE, 0))
    assert caught.value.reason is ForeignReason.WRONG_KEY


@pytest.mark.parametrize("device", ["", "a\nb", "a\\", "a\x00"])
def test_an_id_that_no_device_can_have_is_foreign(profile: Profile, device: str) -> None:
    value = change_value(profile, replace(CHANGE, device=device), 0)
    with pytest.raises(ForeignRecordError, match="generatorID is"):
        read_change(profile, device.encode(), value)


def test_another_id_field_is_foreign(profile: Profile) -> None:
    renamed = profile.model_copy(update={"id_field": "pumpID"})
    with pytest.raises(ForeignRecordError, match="pumpID"):
        read_change(renamed, KEY, change_value(profile, CHANGE, 0))


@given(key=st.binary(), value=st.binary())
def test_any_bytes_are_a_change_or_foreign(profile: Profile, key: bytes, value: bytes) -> None:
    _reads(profile, key, value)


@given(
    changed=st.dictionaries(
        st.sampled_from(
            ["generatorID", "rule", "alarm", "state", "since", "window_start", "revision"]
        ),
        JSON,
    )
)
def test_any_json_is_a_change_or_foreign(profile: Profile, changed: dict[str, Any]) -> None:
    content = {**json.loads(change_value(profile, CHANGE, 0)), **changed}
    _reads(profile, KEY, json.dumps(content).encode())


@given(cut=st.integers(0, 400), place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_change_is_a_change_or_foreign(
    profile: Profile, cut: int, place: int, byte: int
) -> None:
    value = bytearray(change_value(profile, CHANGE, 0))
    if place < len(value):
        value[place] = byte
    _reads(profile, KEY, bytes(value))
    _reads(profile, KEY, bytes(value[:cut]))


def _reads(profile: Profile, key: bytes, value: bytes) -> None:
    try:
        item = read_change(profile, key, value)
    except ForeignRecordError:
        return
    # What was accepted can be published again.
    again = change_value(profile, item.change, item.revision)
    assert read_change(profile, item.change.device.encode(), again) == item
