"""Presence: new and repeated states, and foreign records on the status topic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest import presence as module
from headrace.ingest.presence import PresenceRegistry, parse_record, recorded_presence
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.presence import Presence, PresenceState
from headrace.profile import Profile
from headrace.storage.kafka import Kafka, Record
from headrace.storage.presence_records import presence_value
from headrace.storage.records import SkippedRecords

BEGUN = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ONLINE, OFFLINE = PresenceState.ONLINE, PresenceState.OFFLINE


def value_of(device: str = "g1", **changes: Any) -> bytes:
    content = json.loads(presence_value(Presence(device, ONLINE, BEGUN), "generatorID"))
    content.update(changes)
    return json.dumps({name: item for name, item in content.items() if item is not ...}).encode()


def test_a_repeated_state_keeps_its_start_time() -> None:
    registry = PresenceRegistry({})
    later = BEGUN + timedelta(minutes=1)
    assert registry.update("g1", ONLINE, BEGUN).since == BEGUN
    assert registry.update("g1", ONLINE, later).since == BEGUN
    assert registry.update("g1", OFFLINE, later).since == later
    registry.forget("g1")
    assert registry.update("g1", OFFLINE, BEGUN).since == BEGUN


def test_a_flood_of_ids_does_not_displace_known_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_DEVICES", 100)
    known: dict[str, Presence] = {}
    registry = PresenceRegistry(known)
    for number in range(1000):
        registry.update(f"g{number}", ONLINE, BEGUN)
    later = BEGUN + timedelta(minutes=1)
    assert len(known) == 100
    assert registry.update("g5", ONLINE, later).since == BEGUN
    assert registry.update("g5", OFFLINE, later).since == later
    assert registry.update("g500", ONLINE, later).since == later


def test_a_written_state_is_read_again() -> None:
    assert parse_record(b"g1", value_of(), "generatorID") == ("g1", Presence("g1", ONLINE, BEGUN))
    assert parse_record(b"g1", b"", "generatorID") == ("g1", None)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"x", b"hello", ForeignReason.NOT_JSON),
        (b"x", b"\xff", ForeignReason.NOT_JSON),
        (b"x", b"[" * 60_000 + b"]" * 60_000, ForeignReason.NOT_JSON),
        (b"x", b"1" * 5000, ForeignReason.NOT_JSON),
        (b"x", b"[]", ForeignReason.NOT_AN_OBJECT),
        (b"x", b"null", ForeignReason.NOT_AN_OBJECT),
        (b"x", b"{}", ForeignReason.MISSING_FIELD),
        (b"g1", value_of(since=...), ForeignReason.MISSING_FIELD),
        (b"g1", value_of(generatorID=7), ForeignReason.WRONG_VALUE),
        (b"g1", value_of(status="away"), ForeignReason.WRONG_VALUE),
        (b"g1", value_of(status=[]), ForeignReason.WRONG_VALUE),
        (b"g1", value_of(since=5), ForeignReason.WRONG_VALUE),
        (b"g1", value_of(since="soon"), ForeignReason.WRONG_VALUE),
        (b"g1", value_of(since="2026-01-31T12:00:00"), ForeignReason.WRONG_VALUE),
        (b"g1", value_of(since="0001-01-01T00:00:00+14:00"), ForeignReason.WRONG_VALUE),
        (b"g2", value_of(), ForeignReason.WRONG_KEY),
        (b"?", value_of("\ud800"), ForeignReason.WRONG_KEY),
        (b"", value_of(), ForeignReason.WRONG_KEY),
        (b"\xff", b"", ForeignReason.WRONG_KEY),
    ],
)
def test_foreign_records(key: bytes, value: bytes, reason: ForeignReason) -> None:
    with pytest.raises(ForeignRecordError) as error:
        parse_record(key, value, "generatorID")
    assert error.value.reason is reason


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "generatorID": st.just("g1") | _ANY,
        "status": st.just("online") | _ANY,
        "since": st.datetimes().map(datetime.isoformat) | _ANY,
    },
)


@given(
    key=st.just(b"g1") | st.binary(max_size=9),
    value=st.binary(max_size=60) | _OBJECTS.map(json.dumps).map(str.encode),
)
def test_any_status_record_is_read_or_foreign(key: bytes, value: bytes) -> None:
    try:
        device, presence = parse_record(key, value, "generatorID")
    except ForeignRecordError:
        return
    assert device.encode() == key
    assert presence is None or presence.device == device


def test_foreign_records_are_skipped_and_counted(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [(b"x", b"hello"), (b"x", b"[]"), (b"g1", value_of()), (b"g2", value_of("g2"))]
    items += [(b"g2", b""), (b"\xff\xfe", b"")]

    def read_topic(*_: object) -> Iterator[Record]:
        for offset, (key, value) in enumerate(items):
            yield Record("generator_status", 0, offset, key, value, 0, {})

    monkeypatch.setattr(module, "read_topic", read_topic)
    skipped = SkippedRecords()
    known = recorded_presence(cast("Kafka", None), profile, skipped)
    assert set(known) == {"g1"}
    assert skipped.by_topic() == {"generator_status": 3}
