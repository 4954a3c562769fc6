"""Changes of alarms, derived from rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from headrace.models.alarm import (
    SILENT,
    AlarmChange,
    AlarmState,
    DeviceHistory,
    PublishedChange,
    change_value,
    changes_of,
    difference,
    read_change,
    silent_windows,
)
from headrace.profile import Profile

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
LOW, NORMAL = "refuel", "no action"


def at(minute: int) -> datetime:
    return NOON + minute * MINUTE


def history(
    levels: dict[int, str], before: int | None = None, level_before: str | None = None
) -> DeviceHistory:
    return DeviceHistory(
        "generator1",
        None if before is None else at(before),
        {} if level_before is None else {"fuel": level_before},
        [(at(minute), {"fuel": level}) for minute, level in sorted(levels.items())],
    )


def seen(
    profile: Profile, past: DeviceHistory, known_to: int
) -> list[tuple[str, AlarmState, int, int]]:
    """Rule, state, window and since (in minutes) of the changes, by window."""
    computed = {at(minute) for minute in range(-60, known_to)}
    changes = changes_of(past, profile, computed)
    return sorted(
        (
            (
                change.rule,
                change.state,
                (change.window_start - NOON) // MINUTE,
                (change.since - NOON) // MINUTE,
            )
            for change in changes
        ),
        key=lambda item: (item[2], item[0]),
    )


def test_raised_and_cleared(profile: Profile) -> None:
    past = history({0: NORMAL, 1: LOW, 2: LOW, 3: NORMAL})
    assert seen(profile, past, 4) == [
        ("fuel", AlarmState.RAISED, 1, 1),
        ("fuel", AlarmState.CLEARED, 3, 3),
    ]


def test_the_first_row_ever_raises_but_does_not_clear(profile: Profile) -> None:
    assert seen(profile, history({0: LOW}), 1) == [("fuel", AlarmState.RAISED, 0, 0)]
    assert seen(profile, history({0: NORMAL}), 1) == []


def test_what_stood_before_the_range_is_no_change(profile: Profile) -> None:
    assert seen(profile, history({0: LOW}, before=-1, level_before=LOW), 1) == []


def test_silent_after_three_minutes(profile: Profile) -> None:
    past = history({0: NORMAL})
    assert seen(profile, past, 3) == []
    assert seen(profile, past, 4) == [(SILENT, AlarmState.RAISED, 3, 1)]


def test_silence_ends_with_the_next_row(profile: Profile) -> None:
    assert seen(profile, history({0: NORMAL, 10: NORMAL}), 11) == [
        (SILENT, AlarmState.RAISED, 3, 1),
        (SILENT, AlarmState.CLEARED, 10, 10),
    ]


def test_a_gap_of_two_windows_is_no_silence(profile: Profile) -> None:
    assert seen(profile, history({0: NORMAL, 3: NORMAL}), 4) == []


def test_silence_that_began_before_the_range(profile: Profile) -> None:
    past = history({5: NORMAL}, before=-2, level_before=NORMAL)
    assert seen(profile, past, 6) == [
        (SILENT, AlarmState.RAISED, 1, -1),
        (SILENT, AlarmState.CLEARED, 5, 5),
    ]


def test_windows_that_nobody_computed_are_no_silence(profile: Profile) -> None:
    """After an outage rows are far apart because windows are missing, not devices."""
    past = history({60: NORMAL}, before=0, level_before=NORMAL)
    assert silent_windows(past, profile) == [[at(1), at(2), at(3)], [at(61), at(62), at(63)]]
    assert changes_of(past, profile, {at(2), at(3), at(60), at(61)}) == []


def test_a_row_without_a_level_changes_nothing(profile: Profile) -> None:
    rows = [(at(0), {"fuel": LOW}), (at(1), {}), (at(2), {"fuel": LOW})]
    past = DeviceHistory("generator1", None, {}, rows)
    assert seen(profile, past, 3) == [("fuel", AlarmState.RAISED, 0, 0)]


def change(state: AlarmState = AlarmState.RAISED, level: str = LOW, minute: int = 1) -> AlarmChange:
    return AlarmChange("generator1", "fuel", level, state, at(minute), at(minute))


def test_difference_of_nothing_new() -> None:
    known = {change().key: PublishedChange(change(), 0)}
    assert difference([change()], known) == []


def test_difference_withdraws_what_never_was() -> None:
    known = {change().key: PublishedChange(change(), 0)}
    (news,) = difference([], known)
    assert (news.change.state, news.revision) == (AlarmState.WITHDRAWN, 1)
    # Told once: a withdrawal is not withdrawn again.
    assert difference([], {change().key: news}) == []


def test_difference_tells_again_what_was_withdrawn() -> None:
    void = change(AlarmState.WITHDRAWN)
    (news,) = difference([change()], {void.key: PublishedChange(void, 1)})
    assert (news.change.state, news.revision) == (AlarmState.RAISED, 2)


def test_wire_format_round_trip(profile: Profile) -> None:
    value = change_value(profile, change(), 3)
    assert read_change(profile, value) == PublishedChange(change(), 3)


@given(
    levels=st.dictionaries(st.integers(0, 40), st.sampled_from([LOW, NORMAL]), min_size=1),
    cut=st.integers(1, 40),
)
def test_cutting_the_range_anywhere_changes_nothing(
    profile: Profile, levels: dict[int, str], cut: int
) -> None:
    """Changes of two ranges in a row are those of both in one."""
    known_to = 41
    whole = seen(profile, history(levels), known_to)
    left = {minute: level for minute, level in levels.items() if minute < cut}
    right = {minute: level for minute, level in levels.items() if minute >= cut}
    parts = []
    if left:
        # The first part knows of the first row after it, up to which it answers.
        reach = min(right) + 1 if right else known_to
        following = {min(right): right[min(right)]} if right else {}
        parts += [item for item in seen(profile, history(left | following), reach) if item[2] < cut]
    before = max(left) if left else None
    past = history(right, before, levels[before] if before is not None else None)
    parts += [item for item in seen(profile, past, known_to) if item[2] >= cut]
    assert sorted(parts, key=lambda item: (item[2], item[0])) == whole
