"""Alarm changes and their keys.

How changes follow from stored rows is in `headrace.models.alarm_derivation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = [
    "SILENT",
    "AlarmChange",
    "AlarmState",
    "ChangeKey",
    "PublishedChange",
]

#: The built-in rule: a known device no longer sends readings.
SILENT = "silent"

#: Device, rule, and start of the window of the change.
ChangeKey = tuple[str, str, datetime]


class AlarmState(StrEnum):
    """Kind of an alarm change."""

    RAISED = "raised"
    CLEARED = "cleared"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class AlarmChange:
    """A change of a device's level for one rule.

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
        Time from which the level applies.
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
        """Key of the change."""
        return self.device, self.rule, self.window_start


@dataclass(frozen=True)
class PublishedChange:
    """A published change. The first revision is 0, and each correction adds 1."""

    change: AlarmChange
    revision: int
