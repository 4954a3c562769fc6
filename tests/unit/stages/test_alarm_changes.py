"""Alarm changes do not depend on the order in which windows are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.alarm import SILENT, AlarmState
from headrace.models.window import WindowRange
from headrace.profile import Profile
from tests.support.stored_windows import Levels, StoredWindows

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
LOW, NORMAL = "refuel", "no action"
HOT, COOL = "overheating", "no action"
#: Windows of the random histories.
WINDOWS = 24


def at(minute: int) -> datetime:
    return NOON + minute * MINUTE


def windows(begin: int, count: int = 1) -> WindowRange:
    return WindowRange(at(begin), at(begin + count), MINUTE)


def fuel(level: str | None) -> Levels:
    return {"alarm": level}


def stored(profile: Profile, device: str, levels: Mapping[int, str | None]) -> StoredWindows:
    return StoredWindows(
        profile, {(device, at(minute)): fuel(level) for minute, level in levels.items()}
    )


def minutes(store: StoredWindows, rule: str = "fuel") -> list[tuple[int, str, int]]:
    """Return window, state and since (in minutes) of a rule's valid changes."""
    return sorted(
        ((window - NOON) // MINUTE, state, (since - NOON) // MINUTE)
        for _, told, window, state, since in store.standing()
        if told == rule
    )


def in_order(
    raw: Mapping[tuple[str, datetime], Levels], computed: Iterable[int], profile: Profile
) -> set[tuple[str, str, datetime, str, datetime]]:
    """Return the changes by definition: from each device's windows in order."""
    computed = set(computed)
    changes = set()
    for device in {device for device, _ in raw}:
        rows = {
            (window - NOON) // MINUTE: row
            for (own, window), row in raw.items()
            if own == device and (window - NOON) // MINUTE in computed
        }
        for rule in profile.alarms:
            level = rule.normal
            for minute, row in sorted(rows.items()):
                now = row.get(rule.writes)
                if now is not None and now != level:
                    level = now
                    state = "cleared" if now == rule.normal else "raised"
                    changes.add((device, rule.rule, at(minute), state, at(minute)))
        starts = sorted(rows)
        for index, last in enumerate(starts):
            known = index > 0 and (last - starts[index - 1]) * MINUTE <= profile.silent.known
            ended = starts[index + 1] if index + 1 < len(starts) else None
            quiet = {last + 1, last + 2, last + 3}
            if known and quiet <= computed and (ended is None or ended > last + 3):
                changes.add((device, SILENT, at(last + 3), "raised", at(last + 1)))
                if ended is not None:
                    changes.add((device, SILENT, at(ended), "cleared", at(ended)))
    return changes


rows = st.dictionaries(
    st.tuples(st.sampled_from(["g1", "g2"]), st.integers(0, WINDOWS - 1)),
    st.fixed_dictionaries(
        {
            "alarm": st.sampled_from([LOW, NORMAL, None]),
            "temperature_alarm": st.sampled_from([HOT, COOL, None]),
        }
    ),
    max_size=30,
)
ranges = st.lists(
    st.tuples(st.integers(0, WINDOWS - 1), st.integers(1, 8)).map(
        lambda item: windows(item[0], min(item[1], WINDOWS - item[0]))
    ),
    max_size=8,
)


def dated(found: Mapping[tuple[str, int], Any]) -> dict[tuple[str, datetime], Levels]:
    return {(device, at(minute)): levels for (device, minute), levels in found.items()}


@pytest.mark.parametrize("known", [MINUTE * 5, timedelta(hours=24)])
@settings(max_examples=40, deadline=None)
@given(
    first=rows,
    later=rows,
    gone=st.sets(st.tuples(st.sampled_from(["g1", "g2"]), st.integers(0, WINDOWS - 1))),
    before=ranges,
    after=ranges,
    order=st.permutations(list(range(0, WINDOWS, 4))),
    missed=st.sets(st.integers(0, WINDOWS - 1), max_size=2),
)
def test_computing_in_any_order_gives_the_same_changes(
    profile: Profile,
    known: timedelta,
    first: Mapping[tuple[str, int], Any],
    later: Mapping[tuple[str, int], Any],
    gone: set[tuple[str, int]],
    before: list[WindowRange],
    after: list[WindowRange],
    order: list[int],
    missed: set[int],
) -> None:
    """Rows can be late, corrected or deleted, ranges repeated, and pieces in any order."""
    silent = profile.silent.model_copy(update={"known": known})
    changed = profile.model_copy(update={"silent": silent})
    store = StoredWindows(changed, dated(first))
    for range_ in before:
        store.compute(range_)
    store.raw |= dated(later)
    for device, minute in gone:
        store.raw.pop((device, at(minute)), None)
    for range_ in after:
        store.compute(range_)
    # At the end, compute every window again, in pieces of any order; some are missed, then healed.
    for begin in order:
        for part in _without(begin, missed):
            store.compute(part)
    for minute in missed:
        store.compute(windows(minute))
    assert store.standing() == in_order(store.raw, range(WINDOWS), changed)
    # Computing everything again publishes nothing.
    for begin in order:
        assert store.compute(windows(begin, 4)) == []


def _minute(start: datetime) -> int:
    return (start - NOON) // MINUTE


def _without(begin: int, missed: set[int]) -> list[WindowRange]:
    """Return four windows without the missed ones, as few ranges."""
    wanted = [minute for minute in range(begin, begin + 4) if minute not in missed]
    found: list[WindowRange] = []
    for minute in wanted:
        if found and found[-1].stop == at(minute):
            found[-1] = WindowRange(found[-1].start, at(minute + 1), MINUTE)
        else:
            found.append(windows(minute))
    return found


def test_a_late_level_before_a_row_without_level_is_published_once(profile: Profile) -> None:
    """The next row has no level; the alarm was raised at the row after it."""
    store = stored(profile, "g1", {0: NORMAL, 2: None, 3: LOW})
    store.compute(windows(0, 4))
    assert minutes(store) == [(3, "raised", 3)]
    store.raw["g1", at(1)] = fuel(LOW)
    store.compute(windows(1))
    assert minutes(store) == [(1, "raised", 1)]
    told = store.published["g1", "fuel", at(3)].change.state
    assert told is AlarmState.WITHDRAWN


def test_a_withdrawn_alarm_is_raised_at_the_next_level(profile: Profile) -> None:
    store = stored(profile, "g1", {0: NORMAL, 1: LOW, 2: None, 3: LOW})
    store.compute(windows(0, 4))
    assert minutes(store) == [(1, "raised", 1)]
    store.raw["g1", at(1)] = fuel(NORMAL)
    store.compute(windows(1))
    # Fuel is still low in window 3, so the alarm must be raised.
    assert minutes(store) == [(3, "raised", 3)]


def test_a_device_with_late_readings_is_not_silent(profile: Profile) -> None:
    """The device's clock is 90 s slow, so its readings arrive after their windows are computed."""
    store = StoredWindows(profile, {("g1", at(minute)): {} for minute in range(4)})
    store.compute(windows(0, 4))
    for minute in range(4, 12):
        # The readings of the second-last window are stored but not in a row.
        store.raw["g1", at(minute - 2)] = {}
        late = store.raw.copy()
        store.raw = {key: row for key, row in late.items() if key[1] < at(minute - 1)}
        store.compute(windows(minute))
    assert minutes(store, SILENT) == []
    store.compute(windows(4, 8))
    assert minutes(store, SILENT) == []


def test_a_stopped_device_becomes_silent(profile: Profile) -> None:
    store = StoredWindows(profile, {("g1", at(minute)): {} for minute in range(2)})
    for minute in range(8):
        store.compute(windows(minute))
    assert minutes(store, SILENT) == [(4, "raised", 2)]


def test_a_million_ids_with_one_reading_each_are_not_silent(profile: Profile) -> None:
    flood = {(f"x{number}", at(number % 5)): fuel(NORMAL) for number in range(2000)}
    honest = {("g1", at(minute)): fuel(NORMAL) for minute in range(5)}
    store = StoredWindows(profile, {**flood, **honest})
    for minute in range(12):
        store.compute(windows(minute))
    assert {device for device, *_ in store.standing()} == {"g1"}
    # A few queries per window, for any number of devices.
    assert len([verb for verb in store.queries if verb != "downsample"]) <= 12 * 5


def test_an_old_silence_is_not_published_when_its_device_returns(profile: Profile) -> None:
    store = StoredWindows(profile, {("g1", at(minute)): {} for minute in (0, 1)})
    store.compute(windows(0, 10))
    assert minutes(store, SILENT) == [(4, "raised", 2)]
    store.raw["g1", at(400)] = {}
    store.computed |= {at(minute) for minute in range(10, 400)}
    store.compute(windows(400))
    assert minutes(store, SILENT) == [(4, "raised", 2), (400, "cleared", 400)]


def test_changes_of_a_removed_rule_are_unchanged(profile: Profile) -> None:
    store = stored(profile, "g1", {0: NORMAL, 1: LOW})
    store.compute(windows(0, 2))
    without = tuple(rule for rule in profile.alarms if rule.rule != "fuel")
    store.profile = profile.model_copy(update={"alarms": without})
    assert store.compute(windows(0, 2)) == []
    assert minutes(store) == [(1, "raised", 1)]


def test_changes_of_unknown_devices_are_withdrawn(profile: Profile) -> None:
    """Another program wrote a record that looks like ours."""
    forged = stored(profile, "nobody", {1: LOW})
    forged.compute(windows(0, 4))
    store = stored(profile, "g1", {0: NORMAL})
    store.published = forged.published
    store.compute(windows(0, 4))
    assert store.standing() == set()


def test_computing_a_window_again_withdraws_no_silence(profile: Profile) -> None:
    """Its marker is missing for a moment, while another window is published."""
    store = StoredWindows(profile, {("g1", at(minute)): {} for minute in (0, 1)})
    store.compute(windows(0, 8))
    store.computed -= {at(3)}
    store.raw["g1", at(8)] = {}
    assert store.compute(windows(8)) == []
    assert store.compute(windows(4)) == []
    store.compute(windows(3))
    assert minutes(store, SILENT) == [(4, "raised", 2), (8, "cleared", 8)]
