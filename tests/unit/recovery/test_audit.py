"""The audit's counts with records of other programs and reports of lost records."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.models.device_time import epoch_ns
from headrace.models.lost import LostRecords
from headrace.profile import Profile
from headrace.recovery import audit as module
from headrace.recovery.audit import Audit, audit
from headrace.recovery.letters import Letter
from headrace.storage.influx import Influx
from headrace.storage.kafka import Kafka, Record
from headrace.storage.lost_ledger import unreported_losses
from tests.support.devices import reading

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
STOP = START + timedelta(hours=1)
MARGIN = timedelta(hours=1)
HOUR_MS = 3_600_000
START_MS = int(START.timestamp() * 1000)


class Store:
    """Kafka and InfluxDB with a few records, dead letters, points and reports of losses."""

    def __init__(self) -> None:
        self.records: list[tuple[Record, int]] = []
        self.letters: list[Letter] = []
        self.lost: list[LostRecords] = []
        self.points: list[tuple[str, int]] = []
        self.committed = 1_000_000
        self.unreported: list[LostRecords] = []

    def add(self, payload: bytes, second: int, *, key: bytes = b"g1") -> str:
        """Add a record; return its partition and offset."""
        time_ns = epoch_ns(START) + second * 1_000_000_000
        place = len(self.records)
        self.records.append((Record("raw", 0, place, key, payload, START_MS, {}), time_ns))
        return f"raw/0/{place}"

    def letter(self, source: str, time_ns: int) -> None:
        record = Record("letters", 0, len(self.letters), b"g1", b"", START_MS, {})
        self.letters.append(Letter(record, "time_invalid", time_ns, whole=True, source=source))

    def query(self, *_: object, **__: object) -> Iterator[dict[str, str]]:
        points, self.points = self.points, []
        for device, second in points:
            moment = START + timedelta(seconds=second)
            yield {"generatorID": device, "_time": f"{moment:%Y-%m-%dT%H:%M:%S}Z"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()

    def letters(*arguments: Any) -> Iterator[Letter]:
        for item in store.lost:
            arguments[3](item)
        yield from store.letters

    monkeypatch.setattr(module, "_note_what_is_gone", lambda *_: None)
    monkeypatch.setattr(module, "_unreported", lambda *_: store.unreported)
    monkeypatch.setattr(module, "_committed", lambda *_: {0: store.committed})
    monkeypatch.setattr(module, "records_between", lambda *_: iter(store.records))
    monkeypatch.setattr(module, "unanswered_letters", letters)
    return store


@pytest.fixture
def count(store: Store, profile: Profile) -> Callable[[], Audit]:
    kafka, influx = cast("Kafka", None), cast("Influx", cast("Any", store))
    return lambda: audit(kafka, influx, profile, START, STOP, MARGIN, lambda _: None)


def payload(device: str = "g1", **changes: object) -> bytes:
    return json.dumps(reading(device, **changes)).encode()


def test_a_reading_belongs_to_the_device_in_its_payload(
    store: Store, count: Callable[[], Audit]
) -> None:
    """The sink uses the payload, too; a record of another program can have any key."""
    store.add(payload("g1"), 1, key=b"other")
    store.add(payload("g2"), 2, key=b"\xff\xfe")
    store.add(payload("g3"), 3, key=b"")
    store.points = [("g1", 1), ("g2", 2), ("g3", 3)]
    result = count()
    assert (result.readings, result.points, result.lost, result.foreign) == (3, 3, 0, 0)


def test_a_record_rejected_by_the_sink_is_counted_as_rejected(
    store: Store, count: Callable[[], Audit]
) -> None:
    place = store.add(b"\x00hello", 1)
    store.letter(place, epoch_ns(STOP) + 5)
    result = count()
    assert (result.refused, result.lost, result.dead_letters) == (1, 0, 0)


def test_records_that_the_sink_has_not_read_are_pending(
    store: Store, count: Callable[[], Audit]
) -> None:
    for second in range(3):
        store.add(payload(), second)
    store.committed = 1
    result = count()
    assert (result.lost, result.pending) == (1, 2)
    assert not result.nothing_lost


@pytest.mark.parametrize(
    ("recorded_ms", "named"),
    [
        (START_MS, True),
        (START_MS + 30 * 24 * HOUR_MS, True),
        (START_MS - HOUR_MS, True),
        (START_MS - 2 * HOUR_MS, False),
    ],
)
def test_records_reported_as_deleted_since_the_range_are_listed(
    store: Store, count: Callable[[], Audit], recorded_ms: int, *, named: bool
) -> None:
    """Their event times are unknown, so each of them could belong to the range."""
    store.lost = [LostRecords("raw", 0, 5, 9, "deleted", recorded_ms)]
    result = count()
    assert result.nothing_lost is not named
    assert [(item["start"], item["stop"]) for item in result.as_dict()["deleted"]] == (
        [(5, 9)] if named else []
    )


def test_records_deleted_while_no_sink_runs_are_listed(
    store: Store, count: Callable[[], Audit]
) -> None:
    """A sink reports deleted records only when it starts."""
    store.unreported = unreported_losses("raw", {0: 9, 1: 4, 2: 7}, {0: 5, 1: 4})
    result = count()
    assert [(item.partition, item.start, item.stop) for item in result.deleted] == [
        (0, 5, 9),
        (2, 0, 7),
    ]
    assert not result.nothing_lost


def test_an_audit_can_be_repeated_after_any_interruption(
    store: Store,
    count: Callable[[], Audit],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for second in range(3):
        store.add(payload("g1", fuel=second), second)
    points = [("g1", 0), ("g1", 1)]
    calls = itertools.count()
    interrupt_at = float("inf")

    def interrupted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            number = next(calls)
            if number == interrupt_at:
                raise KeyboardInterrupt
            result = call(*arguments, **named)
            if number + 0.5 == interrupt_at:
                raise KeyboardInterrupt
            return result

        return wrapper

    names = ("_note_what_is_gone", "_unreported", "_committed", "records_between")
    for name in (*names, "unanswered_letters"):
        monkeypatch.setattr(module, name, interrupted(getattr(module, name)))
    monkeypatch.setattr(store, "query", interrupted(store.query))

    def again() -> Audit:
        store.points = list(points)
        return count()

    whole = again()
    assert (whole.readings, whole.points, whole.lost) == (3, 2, 1)
    number_of_calls = next(calls)
    assert number_of_calls > 5
    for number in range(2 * number_of_calls):
        calls, interrupt_at = itertools.count(), number / 2
        with pytest.raises(KeyboardInterrupt):
            again()
        interrupt_at = float("inf")
        assert again() == whole, number
        assert list(tmp_path.iterdir()) == [], number
