"""With clocks that jump in both directions, no window is computed before its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.errors import RangeNotOverError
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.clocks import await_end, earlier_clock, read_clocks
from headrace.stages.heal import expected_windows, windows_to_heal
from headrace.stages.pipeline import Pipeline
from tests.support.stored_windows import NO_KAFKA, NO_QUALITY, StoredWindows

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WINDOW = WindowRange(NOON - MINUTE, NOON, MINUTE)
JUMPS = [MINUTE, timedelta(hours=3), timedelta(days=2), timedelta(days=400)]


class EmptyStoreWithAClock(StoredWindows):
    """An empty store with a settable clock."""

    def __init__(self, profile: Profile, clock: datetime) -> None:
        super().__init__(profile)
        self._clock = clock

    def now(self) -> datetime:
        return self._clock


def clocks_at(profile: Profile, own: datetime, server: datetime) -> Pipeline:
    """Return a pipeline with these two clocks and an empty store."""
    store = EmptyStoreWithAClock(profile, server)
    return Pipeline(profile, store, NO_QUALITY, NO_KAFKA, timedelta(days=30), clock=lambda: own)


@pytest.mark.parametrize("jump", JUMPS, ids=str)
@pytest.mark.parametrize("who", ["task", "influxdb"])
def test_a_fast_clock_does_not_end_a_window(
    profile: Profile, jump: timedelta, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    early = WINDOW.stop - timedelta(seconds=30)
    times = (early + jump, early) if who == "task" else (early, early + jump)
    with pytest.raises(RangeNotOverError, match="0:00:30 are left"):
        await_end(WINDOW, read_clocks(clocks_at(profile, *times)))
    assert "clocks differ" in capsys.readouterr().out


@pytest.mark.parametrize("jump", JUMPS, ids=str)
def test_a_slow_clock_delays_a_window(profile: Profile, jump: timedelta) -> None:
    with pytest.raises(RangeNotOverError, match="are left"):
        await_end(WINDOW, read_clocks(clocks_at(profile, NOON - jump, NOON)))


def test_the_stage_waits_for_a_fraction_of_a_second(profile: Profile) -> None:
    await_end(WINDOW, read_clocks(clocks_at(profile, NOON - timedelta(seconds=0.05), NOON)))


@pytest.mark.parametrize("jump", [-jump for jump in JUMPS] + JUMPS, ids=str)
def test_raw_retention_is_judged_by_the_later_clock(profile: Profile, jump: timedelta) -> None:
    clocks = read_clocks(clocks_at(profile, NOON + jump, NOON))
    assert clocks.later == max(NOON, NOON + jump)
    assert clocks.earlier == min(NOON, NOON + jump)


@pytest.mark.parametrize("jump", [-jump for jump in JUMPS] + JUMPS, ids=str)
def test_no_future_window_is_found(profile: Profile, jump: timedelta) -> None:
    """Callers pass the earlier of the clocks, by which all found windows have ended."""
    now = NOON + timedelta(seconds=10)
    pipeline = clocks_at(profile, now + jump, now)
    earlier = earlier_clock(pipeline)
    expected = expected_windows(earlier - timedelta(hours=1), earlier, timedelta(0), pipeline)
    assert expected is not None
    assert expected.stop <= earlier
    whole_day = WindowRange(NOON - timedelta(hours=1), NOON + timedelta(hours=1), MINUTE)
    for piece in windows_to_heal(whole_day, NOON - timedelta(hours=1), pipeline):
        assert piece.stop <= now + jump


@pytest.mark.parametrize("begin", [datetime(2024, 1, 1, tzinfo=UTC), NOON - timedelta(days=400)])
def test_windows_older_than_the_raw_readings_are_not_expected(
    profile: Profile, begin: datetime
) -> None:
    pipeline = clocks_at(profile, NOON, NOON)
    expected = expected_windows(begin, NOON, timedelta(0), pipeline)
    assert expected is not None
    assert expected.start == NOON - timedelta(days=30) + MINUTE
    assert len(windows_to_heal(expected, begin, pipeline)) <= 500


def test_nothing_is_expected_of_an_installation_in_the_future(profile: Profile) -> None:
    pipeline = clocks_at(profile, NOON, NOON)
    assert expected_windows(NOON + timedelta(hours=2), NOON, timedelta(0), pipeline) is None
