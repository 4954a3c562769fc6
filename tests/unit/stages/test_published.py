"""Reading published records from output topics that also have foreign records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.models.alarm import AlarmChange, AlarmState
from headrace.models.foreign import ForeignReason
from headrace.models.row import StoredRow, row_content
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.pipeline import Pipeline
from headrace.stages.published import published_changes, published_rows
from headrace.storage.alarm_records import change_value
from headrace.storage.kafka import Record
from headrace.storage.records import SkippedRecords
from headrace.storage.row_records import row_value

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WINDOWS = WindowRange(NOON, NOON + 2 * MINUTE, MINUTE)


def record(key: bytes, value: bytes, stamp: datetime = NOON + 5 * MINUTE) -> Record:
    return Record("topic", 0, 0, key, value, int(stamp.timestamp() * 1000), {})


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The records of every topic."""
    records: list[Record] = []

    def read_topic(*_: Any, since: datetime, **__: Any) -> Iterator[Record]:
        assert since == NOON + MINUTE
        return iter(records)

    monkeypatch.setattr("headrace.stages.published.read_topic", read_topic)
    return records


@pytest.fixture
def pipeline(profile: Profile) -> Pipeline:
    return cast("Pipeline", SimpleNamespace(profile=profile, kafka=None))


def change(start: datetime, state: AlarmState = AlarmState.RAISED) -> AlarmChange:
    return AlarmChange("g1", "fuel", "refuel", state, start, start)


def test_the_highest_revision_is_used(
    profile: Profile, topic: list[Record], pipeline: Pipeline
) -> None:
    withdrawn = change(NOON, AlarmState.WITHDRAWN)
    for item, revision in ((change(NOON), 0), (withdrawn, 1), (change(NOON), 0)):
        topic.append(record(b"g1", change_value(profile, item, revision)))
    found = published_changes(WINDOWS, pipeline, SkippedRecords())
    assert [(item.change.state, item.revision) for item in found.values()] == [
        (AlarmState.WITHDRAWN, 1)
    ]


@pytest.mark.parametrize("year", [2099, 9999])
def test_a_change_from_the_future_is_foreign(
    profile: Profile, topic: list[Record], pipeline: Pipeline, year: int
) -> None:
    """To withdraw it, a record would need a timestamp that Kafka refuses."""
    future = change(datetime(year, 12, 31, 23, 59, tzinfo=UTC))
    topic.append(record(b"g1", change_value(profile, future, 0)))
    topic.append(record(b"g1", change_value(profile, change(NOON), 0)))
    # The timestamp of our record is at least the end of its window.
    at_end = change(NOON + 4 * MINUTE)
    topic.append(record(b"g1", change_value(profile, at_end, 0)))
    skipped = SkippedRecords()
    found = published_changes(WINDOWS, pipeline, skipped)
    assert [key[2] for key in found] == [NOON, NOON + 4 * MINUTE]
    assert skipped.counts == {("topic", ForeignReason.WRONG_VALUE): 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"g1", b"hello"), (b"g1", b"[]"), (b"g1", b""), (b"", b"{}"), (b"\xff", b"\xff")],
)
def test_foreign_records_are_counted_and_skipped(
    profile: Profile, topic: list[Record], pipeline: Pipeline, key: bytes, value: bytes
) -> None:
    row = StoredRow("g1", NOON, {"fuel": 1.0, "readings": 4})
    topic.append(record(key, value))
    topic.append(record(b"g1", row_value(row_content(profile, row), 3)))
    skipped = SkippedRecords()
    found = published_rows(WINDOWS, pipeline, skipped)
    assert {key: row.revision for key, row in found.items()} == {("g1", NOON): 3}
    topic[1] = record(b"g1", change_value(profile, change(NOON), 0))
    assert len(published_changes(WINDOWS, pipeline, skipped)) == 1
    assert skipped.by_topic() == {"topic": 2}
