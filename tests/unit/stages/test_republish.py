"""Republishing with stores and publishers that fail between the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pytest

from headrace.errors import ServerUnavailableError
from headrace.models.row import StoredRow
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.downsample import downsample
from headrace.stages.republish import Republished, republish
from headrace.storage.alarm_records import read_change
from headrace.storage.kafka import Record
from headrace.storage.row_records import read_row
from tests.support.stored_windows import StoredWindows

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WINDOWS = WindowRange(NOON, NOON + 3 * MINUTE, MINUTE)
COOL = {"temperature_alarm": "no action"}
FULL, LOW = {"alarm": "no action", **COOL}, {"alarm": "refuel", **COOL}
RUN = "test/1"


@dataclass
class Topics:
    """Output topics in memory; its publisher commits all records of a transaction or none.

    Attributes
    ----------
    transactions
        The records of each committed transaction, with their earliest timestamp.
    fenced
        Whether another publisher takes over before the next commit.
    """

    transactions: list[tuple[list[tuple[str, bytes, bytes]], datetime]] = field(
        default_factory=list
    )
    fenced: bool = False

    def __call__(self, *_: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is open."""

    def publish(self, records: Sequence[tuple[str, bytes, bytes]], not_before: datetime) -> None:
        if self.fenced:
            msg = "another publisher took over"
            raise ServerUnavailableError(msg)
        if records:
            self.transactions.append((list(records), not_before))

    def read(self, _: object, topic: str, **__: Any) -> Iterator[Record]:
        for records, stamp in self.transactions:
            for name, key, value in records:
                if name == topic:
                    yield Record(name, 0, 0, key, value, int(stamp.timestamp() * 1000), {})


class StoreThatDiesBeforeItRecords(StoredWindows):
    """Dies before it records published changes."""

    def record_changes(self, changes: object) -> None:
        del changes
        raise ServerUnavailableError("InfluxDB is away")  # noqa: EM101


class StoreThatIsClaimedWhileItIsRead(StoredWindows):
    """Another run claims a window just after its rows were read."""

    def rows(self, windows: WindowRange) -> list[StoredRow]:
        found = super().rows(windows)
        self.claim(WindowRange(NOON + MINUTE, NOON + 2 * MINUTE, MINUTE), "other/1")
        return found


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    made = Topics()
    monkeypatch.setattr("headrace.stages.republish.Publisher", made)
    monkeypatch.setattr("headrace.stages.published.read_topic", made.read)
    monkeypatch.setattr("headrace.stages.downsample.read_clocks", lambda _: NOW)
    return made


@dataclass(frozen=True)
class Now:
    """A time after the windows, for both clocks."""

    earlier: datetime = NOON + timedelta(hours=1)
    later: datetime = NOON + timedelta(hours=1)


NOW = Now()


def filled(store: StoredWindows) -> StoredWindows:
    """Three computed windows of two devices; one device has little fuel."""
    for start in WINDOWS.starts():
        store.raw["g1", start] = FULL
        store.raw["g2", start] = LOW
    downsample(WINDOWS, store.pipeline, settled=True, run=RUN)
    return store


def publish(store: StoredWindows, run: str = RUN) -> Republished:
    return republish(WINDOWS, store.pipeline, run=run)


def rows_on(topics: Topics, profile: Profile) -> list[tuple[str, datetime, int]]:
    return sorted(
        (*row.key, row.revision)
        for record in topics.read(None, profile.topics.downsampled)
        for row in [read_row(profile, record.key, record.value)]
    )


def test_published_records_are_recorded(profile: Profile, topics: Topics) -> None:
    store = filled(StoredWindows(profile))
    done = publish(store)
    assert (done.rows, done.new, done.corrected, done.changes, done.left) == (6, 6, 0, 1, 0)
    assert {marker.published for marker in store.counts.values()} == {2}
    assert [key[:2] for key in store.recorded] == [("g2", "fuel")]
    assert len(topics.transactions) == 1


def test_nothing_is_published_twice(profile: Profile, topics: Topics) -> None:
    store = filled(StoredWindows(profile))
    publish(store)
    again = publish(store)
    assert (again.rows, again.new, again.corrected, again.changes) == (6, 0, 0, 0)
    assert len(topics.transactions) == 1


def test_unpublished_records_are_not_recorded(profile: Profile, topics: Topics) -> None:
    store = filled(StoredWindows(profile))
    topics.fenced = True
    with pytest.raises(ServerUnavailableError, match="took over"):
        publish(store)
    assert store.recorded == {}
    assert {marker.published for marker in store.counts.values()} == {-1}
    topics.fenced = False
    assert publish(store).new == 6


def test_the_next_attempt_records_unrecorded_publications(profile: Profile, topics: Topics) -> None:
    dying = filled(StoreThatDiesBeforeItRecords(profile))
    with pytest.raises(ServerUnavailableError, match="is away"):
        publish(dying)
    store = StoredWindows(**{name: getattr(dying, name) for name in vars(dying)})
    again = publish(store)
    assert (again.new, again.changes) == (0, 0)
    assert [key[:2] for key in store.recorded] == [("g2", "fuel")]
    assert {marker.published for marker in store.counts.values()} == {2}
    assert len(topics.transactions) == 1


@pytest.mark.parametrize("kind", [StoredWindows, StoreThatIsClaimedWhileItIsRead])
def test_a_window_of_another_run_is_left_to_it(
    profile: Profile, topics: Topics, kind: Callable[[Profile], StoredWindows]
) -> None:
    """The other run claims the window before or while its rows are read."""
    store = filled(kind(profile))
    between = WindowRange(NOON + MINUTE, NOON + 2 * MINUTE, MINUTE)
    store.claim(between, "other/1")
    done = publish(store)
    assert (done.left, done.rows, done.new) == (1, 4, 4)
    assert store.counts[NOON + MINUTE].published == -1
    assert NOON + MINUTE not in {start for _, start, _ in rows_on(topics, profile)}
    publish(store, run="other/1")
    assert rows_on(topics, profile) == sorted(
        (device, start, 0) for device in ("g1", "g2") for start in WINDOWS.starts()
    )


def test_changes_are_published_once_for_any_split_of_the_range(
    profile: Profile, topics: Topics
) -> None:
    """A window in the middle belongs to another run; the windows around it are published."""
    store = filled(StoredWindows(profile))
    store.claim(WindowRange(NOON + MINUTE, NOON + 2 * MINUTE, MINUTE), "other/1")
    publish(store)
    publish(store, run="other/1")
    changes = [
        read_change(profile, record.key, record.value)
        for record in topics.read(None, profile.topics.alarms)
    ]
    newest: Mapping[Any, Any] = {item.change.key: item for item in changes}
    raised = [item.change.window_start for item in newest.values() if item.change.state == "raised"]
    assert raised == [NOON]


def test_a_change_of_one_part_is_known_to_the_next(profile: Profile, topics: Topics) -> None:
    """A device is silent from the second window on, which shows in the fourth."""
    store = StoredWindows(profile)
    range_ = WindowRange(NOON, NOON + 5 * MINUTE, MINUTE)
    store.raw = {("g2", start): FULL for start in range_.starts()}
    store.stored["g1", NOON - MINUTE] = FULL
    store.raw["g1", NOON] = FULL
    downsample(range_, store.pipeline, settled=True, run=RUN)
    store.claim(WindowRange(NOON + MINUTE, NOON + 2 * MINUTE, MINUTE), "other/1")
    republish(range_, store.pipeline, run=RUN)
    changes = [
        read_change(profile, record.key, record.value)
        for record in topics.read(None, profile.topics.alarms)
    ]
    assert [(item.change.device, item.change.rule, item.revision) for item in changes] == [
        ("g1", "silent", 0)
    ]
    assert changes[0].change.window_start == NOON + 3 * MINUTE


@pytest.mark.usefixtures("topics")
def test_late_readings_cause_one_correction(profile: Profile) -> None:
    store = filled(StoredWindows(profile))
    publish(store)
    store.raw["g2", NOON] = FULL
    store.claim(WINDOWS, "test/2")
    store.downsample(WINDOWS)
    done = publish(store, run="test/2")
    assert (done.new, done.corrected) == (0, 1)
    assert store.counts[NOON].revision == 1
    assert store.counts[NOON + MINUTE].revision == 0


def test_rows_of_shorter_windows_are_not_published(profile: Profile, topics: Topics) -> None:
    """An earlier profile had windows of half a minute."""
    store = filled(StoredWindows(profile))
    store.stored["g1", NOON + MINUTE / 2] = FULL
    assert publish(store).rows == 6
    assert {start for _, start, _ in rows_on(topics, profile)} == set(WINDOWS.starts())


@pytest.mark.usefixtures("topics")
def test_a_window_needs_few_queries(profile: Profile) -> None:
    """Each call of the store is one query; the clock and each rule add one."""
    store = filled(StoredWindows(profile))
    publish(store)
    store.raw |= {(device, WINDOWS.stop): FULL for device in ("g1", "g2")}
    next_window = WindowRange(WINDOWS.stop, WINDOWS.stop + MINUTE, MINUTE)
    store.queries.clear()
    downsample(next_window, store.pipeline, settled=True, run=RUN)
    republish(next_window, store.pipeline, run=RUN)
    assert store.queries == [
        "count_raw",
        "downsample",
        "rows",
        "markers",
        "neighbours",
        "markers",
    ]
