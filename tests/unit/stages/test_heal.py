"""Windows of a failed run are found and healed, for a failure at any step."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from headrace.errors import ServerUnavailableError
from headrace.models.marker import Marker
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.downsample import downsample
from headrace.stages.heal import windows_to_heal
from headrace.stages.pipeline import Pipeline
from tests.support.stored_windows import StoredWindows

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = WindowRange(NOON, NOON + timedelta(hours=1), MINUTE)
ONE = WindowRange(NOON + 7 * MINUTE, NOON + 8 * MINUTE, MINUTE)
#: Calls of a stage to the store, in order.
STEPS = ("count_raw", "claim", "downsample", "record_computed")


class StoreThatDies(StoredWindows):
    """Unavailable from one step."""

    dies_at = ""

    def count_raw(self, windows: WindowRange) -> dict[datetime, int]:
        self._step("count_raw")
        return super().count_raw(windows)

    def claim(self, windows: WindowRange, run: str) -> None:
        self._step("claim")
        super().claim(windows, run)

    def downsample(self, windows: WindowRange) -> dict[datetime, int]:
        self._step("downsample")
        return super().downsample(windows)

    def record_computed(self, markers: Collection[Marker]) -> None:
        self._step("record_computed")
        super().record_computed(markers)

    def _step(self, name: str) -> None:
        if name == self.dies_at:
            msg = f"InfluxDB is away at {name}"
            raise ServerUnavailableError(msg)


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set both clocks to a time after the hour."""
    later = HOUR.stop + MINUTE
    now = SimpleNamespace(earlier=later, later=later)
    monkeypatch.setattr("headrace.stages.downsample.read_clocks", lambda _: now)


@pytest.fixture
def store(profile: Profile) -> StoreThatDies:
    """An hour of windows, computed and published."""
    made = StoreThatDies(profile)
    made.raw = {("g1", start): {} for start in HOUR.starts()}
    compute(made, HOUR)
    return made


def pipeline(store: StoredWindows) -> Pipeline:
    return replace(store.pipeline, clock=lambda: HOUR.stop + MINUTE)


def compute(store: StoredWindows, windows: WindowRange, *, settled: bool = True) -> None:
    downsample(windows, pipeline(store), settled=settled, run="test/1")
    counts = {start: store.counts[start].rows for start in windows.starts()}
    store.record_published(counts, {})


def to_heal(store: StoredWindows) -> list[WindowRange]:
    return windows_to_heal(HOUR, NOON, pipeline(store))


def test_a_computed_and_published_hour_is_not_healed(store: StoreThatDies) -> None:
    assert to_heal(store) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_window_whose_run_died_is_healed(store: StoreThatDies, step: str) -> None:
    """A late reading arrives, and the run that includes it dies."""
    store.raw["g2", ONE.start] = {}
    store.dies_at = step
    with pytest.raises(ServerUnavailableError, match=step):
        compute(store, ONE)
    store.dies_at = ""
    assert to_heal(store) == [ONE]
    compute(store, ONE)
    assert to_heal(store) == []


def test_an_unpublished_window_is_healed(store: StoreThatDies) -> None:
    downsample(ONE, pipeline(store), settled=True, run="test/2")
    assert to_heal(store) == [ONE]


def test_a_partly_published_window_is_healed(store: StoreThatDies) -> None:
    store.record_published({ONE.start: 0}, {})
    assert to_heal(store) == [ONE]


def test_an_unsettled_window_is_healed(store: StoreThatDies) -> None:
    compute(store, ONE, settled=False)
    assert to_heal(store) == [ONE]


def test_a_missing_window_is_healed_if_expected_or_with_readings(profile: Profile) -> None:
    store = StoredWindows(profile)
    store.raw["g1", ONE.start] = {}
    assert windows_to_heal(HOUR, HOUR.stop, pipeline(store)) == [ONE]
    assert windows_to_heal(HOUR, NOON, pipeline(store)) == [HOUR]


def test_readings_are_counted_before_rows_are_computed(profile: Profile) -> None:
    """A reading that arrives in between makes the count too small, and the window is healed."""

    class StoreInWhichAReadingArrives(StoredWindows):
        def claim(self, windows: WindowRange, run: str) -> None:
            super().claim(windows, run)
            self.raw["late", ONE.start] = {}

    store = StoreInWhichAReadingArrives(profile)
    store.raw = {("g1", start): {} for start in HOUR.starts()}
    compute(store, HOUR)
    assert to_heal(store) == [ONE]
