"""Derives alarm changes from stored rows.

No state is kept between two computations. The rows of a device contain stateless verdicts, the
level of each rule. The changes follow from the verdicts in order, so computing windows in another
order, or again, gives the same changes. They are compared with the published changes, and only
the difference is published.

A rule turns the sequence of its verdicts into changes of its state. The state before a range
is reconstructed from the verdicts before it, and a range decides about changes up to the
first verdict after it that makes the state independent of the range. For a rule whose state
is its last verdict, one verdict on each side is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from headrace.models.alarm import SILENT, AlarmChange, AlarmState, ChangeKey, PublishedChange
from headrace.models.silence import Gap, gaps_of, silence_changes
from headrace.models.window import WindowRange
from headrace.profile import Profile

__all__ = [
    "AlarmHistory",
    "Comparison",
    "Derivation",
    "DeviceHistory",
    "Verdict",
    "compare",
    "compare_changes",
    "derive",
]

#: Start of a window and the level of its row for a rule.
Verdict = tuple[datetime, str]


@dataclass(frozen=True)
class DeviceHistory:
    """The rows of one device in a range of windows and around it.

    Parameters
    ----------
    device
        Its id.
    rows
        Starts of its windows with a row: those of the range, those just before and just
        after it. In order.
    is_open
        Whether the device has no row after the last one of `rows`.
    verdicts
        By rule: the last verdict before the range, those in it, and the first one after it.
        In order. Rows without a level under the rule are left out.
    """

    device: str
    rows: Sequence[datetime] = ()
    is_open: bool = True
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)


@dataclass(frozen=True)
class AlarmHistory:
    """The rows from which the changes of a range follow.

    Parameters
    ----------
    windows
        The range.
    devices
        The history of each device.
    computed, late
        As in `derive`.
    """

    windows: WindowRange
    devices: tuple[DeviceHistory, ...]
    computed: Collection[datetime] = ()
    late: Collection[tuple[str, datetime]] = ()


@dataclass(frozen=True)
class Derivation:
    """The changes of one device that a range decides.

    Parameters
    ----------
    changes
        The changes.
    start
        Start of the range.
    last
        The last window that the range decides, by rule. A missing rule has no
        such limit.
    undecided
        Gaps of which some windows are not computed. Published changes that may follow from
        them are left as they are until these windows are healed.
    """

    changes: tuple[AlarmChange, ...]
    start: datetime
    last: Mapping[str, datetime]
    undecided: tuple[Gap, ...]

    def decides(self, rule: str, window_start: datetime) -> bool:
        """Return whether the range decides changes of a rule in a window."""
        if window_start < self.start or window_start > self.last.get(rule, window_start):
            return False
        return rule != SILENT or not any(gap.concerns(window_start) for gap in self.undecided)


@dataclass(frozen=True)
class Comparison:
    """Difference between derived and published changes.

    Parameters
    ----------
    news
        Changes to publish: new ones, corrections and withdrawals.
    confirmed
        Published changes that are still right.
    """

    news: tuple[PublishedChange, ...]
    confirmed: tuple[PublishedChange, ...]


def derive(
    history: DeviceHistory,
    windows: WindowRange,
    profile: Profile,
    computed: Collection[datetime],
    late: Collection[tuple[str, datetime]] = (),
) -> Derivation:
    """Derive the changes of one device that a range of windows decides.

    Parameters
    ----------
    history
        The device's rows.
    windows
        The range.
    profile
        The rules.
    computed
        Starts of computed windows. A window that is not computed shows no silence.
    late
        Devices, and the last rows before gaps, for which raw readings from the first windows
        of the gap have arrived. These windows will be computed again: there is no silence.
    """
    changes: list[AlarmChange] = []
    last: dict[str, datetime] = {}
    for rule in profile.alarms:
        verdicts = history.verdicts.get(rule.rule, ())
        changes += _level_changes(history.device, rule.rule, rule.normal, verdicts)
        if verdicts and verdicts[-1][0] >= windows.stop:
            last[rule.rule] = verdicts[-1][0]
    if not history.is_open and history.rows:
        last[SILENT] = history.rows[-1]
    undecided = []
    for gap in gaps_of(history.rows, profile):
        if gap.ended is None and gap.raised_in < windows.start:
            # It has no effect on this range.
            continue
        if not all(start in computed for start in gap.without):
            undecided.append(gap)
        elif gap.follows_known(profile.silent.known) and (history.device, gap.last) not in late:
            changes += silence_changes(history.device, gap)
    derivation = Derivation((), windows.start, last, tuple(undecided))
    decided = [item for item in changes if derivation.decides(item.rule, item.window_start)]
    return replace(derivation, changes=tuple(decided))


def _level_changes(
    device: str, rule: str, normal: str, verdicts: Iterable[Verdict]
) -> Iterator[AlarmChange]:
    # The level of a device without earlier verdicts is normal.
    level = normal
    for start, verdict in verdicts:
        if verdict == level:
            continue
        level = verdict
        state = AlarmState.CLEARED if verdict == normal else AlarmState.RAISED
        yield AlarmChange(device, rule, verdict, state, since=start, window_start=start)


def compare_changes(
    history: AlarmHistory, published: Mapping[ChangeKey, PublishedChange], profile: Profile
) -> Comparison:
    """Compare the changes that follow from stored rows with the published ones.

    Parameters
    ----------
    history
        Stored rows. They include every device with published changes in the range or later.
    published
        The newest revision of each published change.
    profile
        The rules.
    """
    derivations = {
        device.device: derive(device, history.windows, profile, history.computed, history.late)
        for device in history.devices
    }
    return compare(derivations, published, profile)


def compare(
    derivations: Mapping[str, Derivation],
    published: Mapping[ChangeKey, PublishedChange],
    profile: Profile,
) -> Comparison:
    """Compare derived changes with published ones.

    Changes of removed rules stay unchanged.

    Parameters
    ----------
    derivations
        By device. Every device with published changes is among them.
    published
        The newest revision of each published change.
    profile
        The rules.
    """
    rules = {SILENT, *(rule.rule for rule in profile.alarms)}
    unmatched = {
        key: known
        for key, known in published.items()
        if key[1] in rules and key[0] in derivations and derivations[key[0]].decides(*key[1:])
    }
    news, confirmed = [], []
    for derivation in derivations.values():
        for change in derivation.changes:
            known = unmatched.pop(change.key, None)
            if known is None:
                news.append(PublishedChange(change, 0))
            elif known.change != change:
                news.append(PublishedChange(change, known.revision + 1))
            else:
                confirmed.append(known)
    for known in unmatched.values():
        if known.change.state is AlarmState.WITHDRAWN:
            confirmed.append(known)
        else:
            withdrawn = replace(known.change, state=AlarmState.WITHDRAWN)
            news.append(PublishedChange(withdrawn, known.revision + 1))
    return Comparison(tuple(news), tuple(confirmed))
