"""The store of readings with an InfluxDB that refuses lines or is unavailable."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any, cast

import pytest

from headrace.errors import AccessDeniedError, RefusedError, ServerUnavailableError
from headrace.models.deadletter import Reason
from headrace.profile import Profile
from headrace.storage.influx_readings import (
    InfluxReadingStore,
    Patience,
    write_halving,
)
from headrace.storage.reading_lines import LineBatch
from tests.support.devices import reading
from tests.support.sink_world import Database


class Lines(list[bytes]):
    """A list that supports weak references, so that a test notices when it is freed."""


def test_refused_lines_are_found_and_all_others_written() -> None:
    bad = {b"b3", b"b7"}
    stored: set[bytes] = set()

    def write(data: bytes) -> None:
        lines = data.split(b"\n")
        if bad & set(lines):
            msg = "refused"
            raise RefusedError(msg)
        stored.update(lines)

    lines = [b"b%d" % number for number in range(10)]
    assert set(write_halving(write, lines)) == {3, 7}
    assert stored == set(lines) - bad


def test_an_empty_batch_writes_nothing() -> None:
    assert write_halving(lambda _: pytest.fail("written"), []) == {}


def test_written_lines_are_freed_without_the_garbage_collector() -> None:
    lines = Lines([b"a", b"b"])
    there = weakref.ref(lines)
    gc.disable()
    try:
        write_halving(lambda _: None, lines)
        del lines
        assert there() is None
    finally:
        gc.enable()


def test_refused_lines_are_freed_without_the_garbage_collector() -> None:
    """The stored error of a refused line must not keep the frames it passed through."""
    lines = Lines([b"a", b"b"])
    there = weakref.ref(lines)

    def refuse(_: bytes) -> None:
        msg = "refused"
        raise RefusedError(msg)

    gc.disable()
    try:
        refused = write_halving(refuse, lines)
        del lines
        assert set(refused) == {0, 1}
        assert there() is None
    finally:
        gc.enable()


def store_of(database: Database, profile: Profile, **more: Any) -> InfluxReadingStore:
    return InfluxReadingStore(cast("Any", database), profile, **more)


def filled(store: InfluxReadingStore, *fuel: float) -> LineBatch:
    batch = store.new_batch()
    payloads = [json.dumps(reading(fuel=value)).encode() for value in fuel]
    times = [b"%d" % number for number in range(1, len(fuel) + 1)]
    assert batch.add(payloads, times) == {}
    return batch


def test_refused_readings_have_indices_in_their_own_batch(profile: Profile) -> None:
    """Two readings with the same text are two readings."""
    database = Database()
    database.refused = b"fuel=7 "
    store = store_of(database, profile)
    batches = [filled(store, 1, 7), filled(store), filled(store, 7, 2, 7)]
    refused = store.write(batches)
    assert [sorted(some) for some in refused] == [[1], [], [0, 2]]
    assert refused[0][1].reason == "field type conflict"
    assert refused[0][1].reading == batches[0].lines[1].decode()
    assert database.fuel == [1, 2]


def test_invalid_readings_are_left_out_of_the_batch(profile: Profile) -> None:
    store = store_of(Database(), profile)
    good = [json.dumps(reading(fuel=number)).encode() for number in range(250)]
    bad = {0: b"", 120: b"rubbish", 249: json.dumps(reading(generatorID="a\n")).encode()}
    payloads = [bad.get(number, payload) for number, payload in enumerate(good)]
    batch = store.new_batch()
    rejected = batch.add(payloads, [b"1"] * 250)
    assert {number: item.reason for number, item in rejected.items()} == {
        0: Reason.NOT_JSON,
        120: Reason.NOT_JSON,
        249: Reason.ID_UNWRITABLE,
    }
    assert len(batch) == 247
    store.write([batch])


class DatabaseThatComesBack(Database):
    """Fails for some calls."""

    def __init__(self, away_for: int) -> None:
        super().__init__()
        self.left = away_for

    def write(self, bucket: str, data: bytes) -> None:
        self.left -= 1
        self.away = self.left >= 0
        super().write(bucket, data)


def test_a_patient_store_waits_and_reports_the_reason(profile: Profile) -> None:
    told: list[str] = []
    patience = Patience(told.append, lambda: told.append("fine"))
    database = DatabaseThatComesBack(2)
    store = store_of(database, profile, patience=patience)
    assert store.write([filled(store, 5)]) == [{}]
    assert told == ["InfluxDB does not answer", "InfluxDB does not answer", "fine"]
    assert database.fuel == [5]


def test_a_patient_store_can_be_given_up(profile: Profile) -> None:
    patience = Patience(lambda _: None, lambda: None)
    store = store_of(DatabaseThatComesBack(1000), profile, patience=patience)
    store.give_up()
    with pytest.raises(ServerUnavailableError):
        store.write([filled(store, 5)])


def test_an_impatient_store_raises_the_first_error(profile: Profile) -> None:
    class DatabaseThatForbids(Database):
        def write(self, bucket: str, data: bytes) -> None:
            del bucket, data
            msg = "the token may not write"
            raise AccessDeniedError(msg)

    store = store_of(DatabaseThatForbids(), profile)
    with pytest.raises(AccessDeniedError):
        store.write([filled(store, 5)])
