"""Finds gaps between the rows of a device that are long enough for an alarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.models.alarm import SILENT, AlarmChange, AlarmState
from headrace.profile import Profile

__all__ = ["Gap", "gaps_of", "silence_changes", "windows_of_silence"]

_SILENT_LEVEL = "silent"
_REPORTING_LEVEL = "reporting"


@dataclass(frozen=True)
class Gap:
    """A gap between two rows of a device that is longer than the profile allows.

    Parameters
    ----------
    last
        Start of the window of the last row before the gap.
    previous
        Start of the window of the row before that one, if there is one.
    ended
        Start of the window of the next row; `None` if there is none yet.
    without
        Starts of the first windows of the gap, up to the number that makes a device silent.
    """

    last: datetime
    previous: datetime | None
    ended: datetime | None
    without: tuple[datetime, ...]

    @property
    def raised_in(self) -> datetime:
        """Start of the window in which the alarm is raised."""
        return self.without[-1]

    def follows_known(self, known: timedelta) -> bool:
        """Whether the device was known, that is, had rows in two windows within the time.

        A device id that appears only once is more often a mistake than a device.
        """
        return self.previous is not None and self.last - self.previous <= known

    def concerns(self, window_start: datetime) -> bool:
        """Return whether a change of the rule `silent` in a window can follow from this gap."""
        return window_start in (self.raised_in, self.ended)


def windows_of_silence(profile: Profile) -> int:
    """Return how many consecutive windows without a row make a device silent."""
    return -(-profile.silent.after // profile.window)


def gaps_of(rows: Sequence[datetime], profile: Profile) -> Iterator[Gap]:
    """Find the gaps after each row.

    Parameters
    ----------
    rows
        Starts of the windows in which a device has a row, in order.
    profile
        Length of the windows, and how long a gap may be.

    Yields
    ------
    Gap
        In order. The last one has no end.
    """
    patience = windows_of_silence(profile)
    previous: datetime | None = None
    for index, last in enumerate(rows):
        ended = rows[index + 1] if index + 1 < len(rows) else None
        if ended is None or ended - last > patience * profile.window:
            without = tuple(last + (1 + number) * profile.window for number in range(patience))
            yield Gap(last, previous, ended, without)
        previous = last


def silence_changes(device: str, gap: Gap) -> Iterator[AlarmChange]:
    """Return the changes that follow from a gap: the alarm, and its end."""
    yield AlarmChange(
        device,
        SILENT,
        _SILENT_LEVEL,
        AlarmState.RAISED,
        since=gap.without[0],
        window_start=gap.raised_in,
    )
    if gap.ended is not None:
        yield AlarmChange(
            device,
            SILENT,
            _REPORTING_LEVEL,
            AlarmState.CLEARED,
            since=gap.ended,
            window_start=gap.ended,
        )
