"""Derivation of alarm changes from the rows of one device."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace.models.alarm import SILENT, AlarmChange, AlarmState, PublishedChange
from headrace.models.alarm_derivation import Derivation, DeviceHistory, compare, derive
from headrace.models.window import WindowRange
from headrace.profile import Profile

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
LOW, NORMAL = "refuel", "no action"
ALL = {NOON + minute * MINUTE for minute in range(-60, 120)}


def at(minute: int) -> datetime:
    return NOON + minute * MINUTE


def windows(begin: int, stop: int) -> WindowRange:
    return WindowRange(at(begin), at(stop), MINUTE)


def history(levels: dict[int, str | None], *, is_open: bool = True) -> DeviceHistory:
    return DeviceHistory(
        "generator1",
        [at(minute) for minute in sorted(levels)],
        is_open=is_open,
        verdicts={
            "fuel": [(at(minute), level) for minute, level in sorted(levels.items()) if level]
        },
    )


def seen(derivation: Derivation) -> list[tuple[str, AlarmState, int, int]]:
    """Return rule, state, window and since (in minutes) of the changes, by window."""
    return sorted(
        (
            (
                change.rule,
                change.state,
                (change.window_start - NOON) // MINUTE,
                (change.since - NOON) // MINUTE,
            )
            for change in derivation.changes
        ),
        key=lambda item: (item[2], item[0]),
    )


def test_an_alarm_is_raised_and_cleared(profile: Profile) -> None:
    past = history({0: NORMAL, 1: LOW, 2: LOW, 3: NORMAL})
    assert seen(derive(past, windows(0, 4), profile, {at(3)})) == [
        ("fuel", AlarmState.RAISED, 1, 1),
        ("fuel", AlarmState.CLEARED, 3, 3),
    ]


def test_the_first_row_ever_raises_but_does_not_clear(profile: Profile) -> None:
    raised = derive(history({0: LOW}), windows(0, 1), profile, set())
    assert seen(raised) == [("fuel", AlarmState.RAISED, 0, 0)]
    assert not derive(history({0: NORMAL}), windows(0, 1), profile, set()).changes


def test_a_level_before_the_range_is_not_a_change(profile: Profile) -> None:
    past = history({-1: LOW, 0: LOW})
    assert not derive(past, windows(0, 1), profile, set()).changes


def test_a_row_without_a_level_changes_nothing(profile: Profile) -> None:
    past = history({0: LOW, 1: None, 2: LOW})
    found = derive(past, windows(0, 3), profile, set())
    assert seen(found) == [("fuel", AlarmState.RAISED, 0, 0)]


def test_a_range_decides_up_to_the_next_level_of_each_rule(profile: Profile) -> None:
    past = history({0: NORMAL, 1: None, 5: LOW}, is_open=False)
    found = derive(past, windows(0, 1), profile, ALL)
    assert found.decides("fuel", at(5))
    assert not found.decides("fuel", at(6))
    assert not found.decides("fuel", at(-1))
    # There is no later level for this rule.
    assert found.decides("temperature", at(100))


def test_a_device_is_silent_after_three_minutes(profile: Profile) -> None:
    past = history({-1: NORMAL, 0: NORMAL})
    raised = (SILENT, AlarmState.RAISED, 3, 1)
    assert seen(derive(past, windows(3, 4), profile, ALL)) == [raised]
    assert not derive(past, windows(2, 3), profile, ALL - {at(3)}).changes


def test_a_gap_of_two_windows_is_not_silence(profile: Profile) -> None:
    past = history({-1: NORMAL, 0: NORMAL, 3: NORMAL})
    assert not derive(past, windows(0, 4), profile, ALL - {at(6)}).changes


def test_silence_ends_with_the_next_row(profile: Profile) -> None:
    past = history({-1: NORMAL, 0: NORMAL, 10: NORMAL})
    assert seen(derive(past, windows(0, 11), profile, ALL - {at(11)})) == [
        (SILENT, AlarmState.RAISED, 3, 1),
        (SILENT, AlarmState.CLEARED, 10, 10),
    ]
    # A range that begins later decides only the end.
    assert seen(derive(past, windows(10, 11), profile, ALL - {at(11)})) == [
        (SILENT, AlarmState.CLEARED, 10, 10),
    ]


def test_a_device_with_one_row_is_not_known(profile: Profile) -> None:
    assert not derive(history({0: NORMAL}), windows(0, 9), profile, ALL).changes
    silent = profile.silent.model_copy(update={"known": 2 * MINUTE})
    brief = profile.model_copy(update={"silent": silent})
    past = history({-2: NORMAL, 0: NORMAL})
    assert seen(derive(past, windows(0, 9), brief, ALL)) == [(SILENT, AlarmState.RAISED, 3, 1)]
    past = history({-3: NORMAL, 0: NORMAL})
    assert not derive(past, windows(0, 9), brief, ALL).changes


def test_uncomputed_windows_do_not_make_a_device_silent(profile: Profile) -> None:
    past = history({-1: NORMAL, 0: NORMAL, 60: NORMAL})
    found = derive(past, windows(60, 61), profile, ALL - {at(1), at(61)})
    assert not found.changes
    # They do not disprove one either: its published changes stay.
    assert not found.decides(SILENT, at(60))
    assert found.decides("fuel", at(60))


def test_a_gap_with_late_readings_is_not_silence(profile: Profile) -> None:
    past = history({-1: NORMAL, 0: NORMAL})
    found = derive(past, windows(3, 4), profile, ALL, late={("generator1", at(0))})
    assert not found.changes
    assert found.decides(SILENT, at(3))


def change(state: AlarmState = AlarmState.RAISED, rule: str = "fuel") -> AlarmChange:
    return AlarmChange("generator1", rule, LOW, state, at(1), at(1))


def derived(*changes: AlarmChange) -> dict[str, Derivation]:
    return {"generator1": Derivation(changes, NOON, {}, ())}


def test_a_published_change_is_confirmed(profile: Profile) -> None:
    known = {change().key: PublishedChange(change(), 2)}
    found = compare(derived(change()), known, profile)
    assert (found.news, found.confirmed) == ((), tuple(known.values()))


def test_a_wrong_change_is_withdrawn_once(profile: Profile) -> None:
    known = {change().key: PublishedChange(change(), 0)}
    (news,) = compare(derived(), known, profile).news
    assert (news.change.state, news.revision) == (AlarmState.WITHDRAWN, 1)
    assert compare(derived(), {change().key: news}, profile).news == ()


def test_a_withdrawn_change_can_be_published_again(profile: Profile) -> None:
    withdrawn = PublishedChange(change(AlarmState.WITHDRAWN), 1)
    (news,) = compare(derived(change()), {change().key: withdrawn}, profile).news
    assert news == PublishedChange(change(), 2)


def test_changes_of_a_removed_rule_are_kept(profile: Profile) -> None:
    gone = change(rule="no_such_rule")
    known = {gone.key: PublishedChange(gone, 0)}
    found = compare(derived(), known, profile)
    assert found.news == found.confirmed == ()
