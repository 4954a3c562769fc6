"""The record of active alarms in InfluxDB agrees with the published changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace.models.alarm import AlarmChange, AlarmState, ChangeKey
from headrace.stages.alarm_record import read_standing
from headrace.storage.alarm_records import read_change
from tests.support.installation import Installation
from tests.support.ranges import MINUTE, hours_ago, windows

LOW, HIGH = {"fuel": 400.0}, {"fuel": 900.0}


def standing(installation: Installation) -> set[tuple[str, str, datetime]]:
    """Return the active alarms of the record, after comparing them with the topic."""
    with installation.pipeline() as pipeline:
        recorded = read_standing(datetime.now(UTC), pipeline)
    told: dict[ChangeKey, AlarmChange] = {}
    for record in installation.records(installation.profile.topics.alarms):
        change = read_change(installation.profile, record.key, record.value).change
        told[change.key] = change
    newest: dict[tuple[str, str], AlarmChange] = {}
    for change in sorted(told.values(), key=lambda change: change.window_start):
        if change.state is not AlarmState.WITHDRAWN:
            newest[change.device, change.rule] = change
    raised = {change for change in newest.values() if change.state is AlarmState.RAISED}
    assert set(recorded) == raised
    return {(change.device, change.rule, change.since) for change in recorded}


def test_an_alarm_is_active_until_it_is_cleared_or_withdrawn(installation: Installation) -> None:
    begin = hours_ago(2)

    def report(window: int, values: dict[str, float], second: int = 10) -> None:
        moment = begin + window * MINUTE + timedelta(seconds=second)
        installation.store((r"a\ \=\,\ device", moment, values), ("other", moment, HIGH))

    def compute(window: int) -> set[tuple[str, str, datetime]]:
        installation.compute(windows(begin + window * MINUTE, 1))
        return standing(installation)

    def stands_since(window: int) -> set[tuple[str, str, datetime]]:
        return {("a =, device", "fuel", begin + window * MINUTE)}

    report(0, HIGH)
    assert compute(0) == set()
    report(1, LOW)
    assert compute(1) == stands_since(1)
    report(2, LOW)
    assert compute(2) == stands_since(1)
    report(3, HIGH)
    assert compute(3) == set()
    report(4, LOW)
    assert compute(4) == stands_since(4)
    # Computing the window again changes nothing.
    assert compute(4) == stands_since(4)
    # A late reading shows that there was no refuelling, so the alarm is active since its start.
    report(3, LOW, second=50)
    assert compute(3) == stands_since(1)
    # Another late reading shows a full tank at the end.
    report(4, HIGH, second=50)
    assert compute(4) == set()


def test_a_silent_device_is_listed_from_when_it_stopped(installation: Installation) -> None:
    begin = hours_ago(2)
    # A device is known only after it reported in two windows.
    installation.store(("silent-one", begin, HIGH), ("silent-one", begin + MINUTE, HIGH))
    installation.store(*(("other", begin + minute * MINUTE, HIGH) for minute in range(8)))
    installation.compute(windows(begin, 8))
    assert standing(installation) == {("silent-one", "silent", begin + 2 * MINUTE)}
