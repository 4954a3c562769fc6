"""Alarms: changes of level, derived from stored windows.

Nothing is remembered between two computations. From the rows of a device, in order, it
follows where its levels changed; doing it again gives the same changes. What consumers
were told before is compared with that, and only the difference goes out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import msgspec

from headrace.models.window import parse_time, rfc3339
from headrace.profile import Profile

__all__ = [
    "SILENT",
    "AlarmChange",
    "AlarmState",
    "ChangeKey",
    "DeviceHistory",
    "Levels",
    "PublishedChange",
    "change_value",
    "changes_of",
    "difference",
    "read_change",
    "silent_windows",
    "windows_of_silence",
]

#: The rule that is built in: a device that used to report and has stopped.
SILENT = "silent"
_SILENT_LEVEL = "silent"
_HEARD_LEVEL = "reporting"

#: Device, rule and window in which the change came about.
ChangeKey = tuple[str, str, datetime]
#: Level of each rule in one row; a rule without a level is left out.
Levels = Mapping[str, str]


class AlarmState(StrEnum):
    """What became of an alarm."""

    RAISED = "raised"
    CLEARED = "cleared"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class AlarmChange:
    """A change of a device's level under one rule.

    Parameters
    ----------
    device, rule
        Whose level, and under which rule.
    level
        Text of the level it changed to.
    state
        `RAISED` if that is an alarm, `CLEARED` if it is the normal level, `WITHDRAWN` for
        a change that consumers were told of and that never was.
    since
        From when on the device has had this level.
    window_start
        Start of the window in which the change shows.
    """

    device: str
    rule: str
    level: str
    state: AlarmState
    since: datetime
    window_start: datetime

    @property
    def key(self) -> ChangeKey:
        """What identifies the change."""
        return self.device, self.rule, self.window_start


@dataclass(frozen=True)
class DeviceHistory:
    """The rows of one device around a range.

    Parameters
    ----------
    device
        Its id.
    before
        Start of its last row before the range, if it has one.
    levels_before
        The last level of each rule before the range.
    rows
        Its rows in the range and its first row after it, in order: the windows' starts,
        and the levels.
    """

    device: str
    before: datetime | None
    levels_before: Levels
    rows: Sequence[tuple[datetime, Levels]]


def changes_of(
    history: DeviceHistory, profile: Profile, computed: Container[datetime]
) -> list[AlarmChange]:
    """Derive the changes of one device, from its rows in a range.

    A silence that began before the range is among them, too.

    Parameters
    ----------
    history
        Its rows.
    profile
        The rules.
    computed
        Starts of windows that are computed, as far as they are among `silent_windows`: that
        nobody has looked yet is no silence.
    """
    changes = [
        change
        for rule in profile.alarms
        for change in _level_changes(history, rule.rule, rule.normal)
    ]
    changes.extend(_silences(history, profile, computed))
    return changes


def _level_changes(history: DeviceHistory, rule: str, normal: str) -> Iterator[AlarmChange]:
    # A device that was never seen before begins at the normal level.
    level = history.levels_before.get(rule, normal)
    for start, levels in history.rows:
        now = levels.get(rule)
        if now is None or now == level:
            continue
        level = now
        state = AlarmState.CLEARED if now == normal else AlarmState.RAISED
        yield AlarmChange(history.device, rule, now, state, since=start, window_start=start)


def silent_windows(history: DeviceHistory, profile: Profile) -> list[list[datetime]]:
    """Windows that make a device silent if all of them are computed, for each silence.

    The last silence may lie in the future.
    """
    return [_patience(last, profile) for last, _ in _gaps(history, profile)]


def _silences(
    history: DeviceHistory, profile: Profile, computed: Container[datetime]
) -> Iterator[AlarmChange]:
    for last, start in _gaps(history, profile):
        without = _patience(last, profile)
        if not all(window in computed for window in without):
            continue
        yield AlarmChange(
            history.device,
            SILENT,
            _SILENT_LEVEL,
            AlarmState.RAISED,
            since=without[0],
            window_start=without[-1],
        )
        if start is not None:
            yield AlarmChange(
                history.device,
                SILENT,
                _HEARD_LEVEL,
                AlarmState.CLEARED,
                since=start,
                window_start=start,
            )


def _gaps(history: DeviceHistory, profile: Profile) -> Iterator[tuple[datetime, datetime | None]]:
    """Where rows are too far apart: the last one before, and the next one."""
    patience = windows_of_silence(profile) * profile.window
    last = history.before
    for start in [*(start for start, _ in history.rows), None]:
        if last is not None and (start is None or last + patience < start):
            yield last, start
        last = start


def _patience(last: datetime, profile: Profile) -> list[datetime]:
    """Windows that have to pass without a row after the last one."""
    return [last + (1 + index) * profile.window for index in range(windows_of_silence(profile))]


def windows_of_silence(profile: Profile) -> int:
    """How many windows in a row without a row make a device silent."""
    return -(-profile.silent.after // profile.window)


@dataclass(frozen=True)
class PublishedChange:
    """A change as consumers have it: revision 0 first, one more with each correction."""

    change: AlarmChange
    revision: int


def change_value(profile: Profile, change: AlarmChange, revision: int) -> bytes:
    """Value of the record on the topic of alarms: flat JSON."""
    return msgspec.json.encode(
        {
            profile.id_field: change.device,
            "rule": change.rule,
            "alarm": change.level,
            "state": change.state.value,
            "since": rfc3339(change.since),
            "window_start": rfc3339(change.window_start),
            "revision": revision,
        }
    )


def read_change(profile: Profile, value: bytes) -> PublishedChange:
    """Read the value of a record on the topic of alarms."""
    content = msgspec.json.decode(value)
    change = AlarmChange(
        device=content[profile.id_field],
        rule=content["rule"],
        level=content["alarm"],
        state=AlarmState(content["state"]),
        since=parse_time(content["since"]),
        window_start=parse_time(content["window_start"]),
    )
    return PublishedChange(change, content["revision"])


def difference(
    derived: Iterable[AlarmChange], published: Mapping[ChangeKey, PublishedChange]
) -> list[PublishedChange]:
    """What consumers have to be told: new changes, corrected ones, and withdrawals.

    Parameters
    ----------
    derived
        Changes as they follow from the rows.
    published
        What consumers were told of the same stretch of time.
    """
    news = []
    missing = dict(published)
    for change in derived:
        known = missing.pop(change.key, None)
        if known is None:
            news.append(PublishedChange(change, 0))
        elif known.change != change:
            news.append(PublishedChange(change, known.revision + 1))
    for known in missing.values():
        if known.change.state is not AlarmState.WITHDRAWN:
            void = replace(known.change, state=AlarmState.WITHDRAWN)
            news.append(PublishedChange(void, known.revision + 1))
    return news
