"""Alarm changes: the values, and their records on the topic of alarms.

How changes follow from stored rows is in `headrace.models.alarm_derivation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.own_json import device_of, integer_of, object_of, text_of, time_of
from headrace.models.window import rfc3339
from headrace.profile import Profile

__all__ = [
    "SILENT",
    "AlarmChange",
    "AlarmState",
    "ChangeKey",
    "PublishedChange",
    "change_value",
    "read_change",
]

#: The built-in rule: a known device sends nothing any more.
SILENT = "silent"

#: Device, rule, and start of the window in which the change shows.
ChangeKey = tuple[str, str, datetime]


class AlarmState(StrEnum):
    """What happened to an alarm."""

    RAISED = "raised"
    CLEARED = "cleared"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class AlarmChange:
    """A change of a device's level under one rule.

    Parameters
    ----------
    device, rule
        The device and the rule.
    level
        The new level.
    state
        `RAISED` if the new level is an alarm, `CLEARED` if it is the normal level. `WITHDRAWN`
        if the change was published and turned out to be wrong.
    since
        The device has had this level since then.
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
class PublishedChange:
    """A change as consumers have it: revision 0 first, one more with each correction."""

    change: AlarmChange
    revision: int


def change_value(profile: Profile, change: AlarmChange, revision: int) -> bytes:
    """Return the value of a record on the topic of alarms: flat JSON."""
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


def read_change(profile: Profile, key: bytes, value: bytes) -> PublishedChange:
    """Parse a record on the topic of alarms.

    Raises
    ------
    ForeignRecordError
        If Headrace did not write it.
    """
    content = object_of(value)
    state = text_of(content, "state")
    if state not in set(AlarmState):
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"state is {state[:40]!r}")
    change = AlarmChange(
        device=device_of(content, profile.id_field, key),
        rule=text_of(content, "rule"),
        level=text_of(content, "alarm"),
        state=AlarmState(state),
        since=time_of(content, "since"),
        window_start=time_of(content, "window_start"),
    )
    return PublishedChange(change, integer_of(content, "revision"))
