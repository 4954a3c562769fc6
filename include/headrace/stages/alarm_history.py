"""Reads the stored rows from which the alarm changes of a range follow.

Rows outside the range matter, too. Whether a row is a change depends on the rows before it, and a
range decides about changes up to the next row with a level. So this module also reads the rows
just before and just after the range, and which windows in between are computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from headrace.models.alarm import SILENT, AlarmState, ChangeKey, PublishedChange
from headrace.models.alarm_derivation import AlarmHistory, DeviceHistory, Verdict
from headrace.models.row import READINGS, StoredRow
from headrace.models.silence import Gap, gaps_of, windows_of_silence
from headrace.models.window import WindowRange, pieces_of
from headrace.stages.neighbours import find_neighbours
from headrace.stages.pipeline import Pipeline
from headrace.stages.window_store import Neighbours

__all__ = ["read_history"]

#: Maximum number of markers that one query reads.
_MARKERS_AT_ONCE = 1440

_Histories = dict[str, DeviceHistory]


@dataclass
class _Rows:
    """The rows of a device in the range."""

    starts: list[datetime] = field(default_factory=list)
    verdicts: dict[str, list[Verdict]] = field(default_factory=lambda: defaultdict(list))


def read_history(
    windows: WindowRange,
    rows: Iterable[StoredRow],
    published: Mapping[ChangeKey, PublishedChange],
    pipeline: Pipeline,
) -> AlarmHistory:
    """Read the history of every device that is affected by a range.

    Parameters
    ----------
    windows
        The range.
    rows
        Its rows, by time.
    published
        The newest revision of every published change of the range and of later windows.
    pipeline
        Profile, stores and clients.
    """
    profile = pipeline.profile
    own = _rows_by_device(rows, pipeline)
    # Corrected changes of earlier windows are not part of this range.
    told = {device for device, _, start in published if start >= windows.start}
    fields = [READINGS, *(rule.writes for rule in profile.alarms)]
    neighbours = find_neighbours(windows, {*own, *told}, fields, pipeline)
    histories = _histories(own, told, neighbours, pipeline)
    _look_further_ahead(windows, histories, own, published, pipeline)
    computed = _computed(windows, histories, pipeline)
    _look_further_back(windows, histories, computed, pipeline)
    late = _late(windows, histories, computed, pipeline)
    return AlarmHistory(windows, tuple(histories.values()), computed, late)


def _rows_by_device(rows: Iterable[StoredRow], pipeline: Pipeline) -> dict[str, _Rows]:
    found: dict[str, _Rows] = defaultdict(_Rows)
    for row in rows:
        device = found[row.device]
        device.starts.append(row.start)
        for rule in pipeline.profile.alarms:
            if (level := row.values.get(rule.writes)) is not None:
                device.verdicts[rule.rule].append((row.start, level))
    return found


def _histories(
    own: Mapping[str, _Rows], told: Collection[str], neighbours: Neighbours, pipeline: Pipeline
) -> _Histories:
    before, after = neighbours.before, neighbours.after
    histories = {}
    for device in {*own, *told, *before[READINGS], *after[READINGS]}:
        rows = own.get(device, _Rows())
        last, following = before[READINGS].get(device), after[READINGS].get(device)
        verdicts = {}
        for rule in pipeline.profile.alarms:
            around = before[rule.writes].get(device), after[rule.writes].get(device)
            verdicts[rule.rule] = [
                *([around[0]] if around[0] else []),
                *rows.verdicts.get(rule.rule, ()),
                *([around[1]] if around[1] else []),
            ]
        histories[device] = DeviceHistory(
            device,
            [
                *([last[0]] if last else []),
                *rows.starts,
                *([following[0]] if following else []),
            ],
            is_open=following is None,
            verdicts=verdicts,
        )
    return histories


def _look_further_ahead(
    windows: WindowRange,
    histories: _Histories,
    own: Mapping[str, _Rows],
    published: Mapping[ChangeKey, PublishedChange],
    pipeline: Pipeline,
) -> None:
    """Add the second row after the range if a silence before it depends on the range.

    If a device is known only through rows in the range, it can be silent after its first row
    after the range.
    """
    profile = pipeline.profile
    patience = windows_of_silence(profile) * windows.length
    asked: dict[datetime, list[DeviceHistory]] = defaultdict(list)
    for history in histories.values():
        if history.is_open:
            continue
        first = history.rows[-1]
        earlier = [start for start in history.rows if start < windows.start]
        if earlier and first - earlier[-1] <= profile.silent.known:
            continue
        raised = published.get((history.device, SILENT, first + patience))
        stands = raised is not None and raised.change.state is not AlarmState.WITHDRAWN
        if history.device in own or stands:
            asked[first].append(history)
    for first, group in asked.items():
        found = pipeline.store.first_values(READINGS, first + windows.length)
        for history in group:
            second = found.get(history.device)
            rows = [*history.rows, *([second[0]] if second else [])]
            histories[history.device] = replace(history, rows=rows, is_open=second is None)


def _computed(
    windows: WindowRange, histories: _Histories, pipeline: Pipeline
) -> Collection[datetime]:
    """Return the computed windows among those in which a device may have become silent.

    After an outage of Airflow, gaps between rows come from missing windows, not from silent
    devices.
    """
    length = windows.length
    around = windows_of_silence(pipeline.profile) * length
    near = WindowRange(windows.start - around, windows.stop + around, length)
    computed = {*windows.starts(), *pipeline.store.markers(near)}
    further = {
        start
        for history in histories.values()
        for gap in gaps_of(history.rows, pipeline.profile)
        if gap.ended is not None or gap.raised_in >= windows.start
        for start in gap.without
        if not near.start <= start < near.stop
    }
    for part in pieces_of(further, length, _MARKERS_AT_ONCE):
        computed |= pipeline.store.markers(part).keys()
    return computed


def _look_further_back(
    windows: WindowRange,
    histories: _Histories,
    computed: Collection[datetime],
    pipeline: Pipeline,
) -> None:
    """Add the second row before the range if it decides whether a silent device was known."""
    profile = pipeline.profile
    asked: dict[datetime, list[DeviceHistory]] = defaultdict(list)
    for history in histories.values():
        gap = next(gaps_of(history.rows, profile), None)
        if gap is None or gap.previous is not None or gap.last >= windows.start:
            continue
        shows = gap.ended is not None or gap.raised_in >= windows.start
        if shows and all(start in computed for start in gap.without):
            asked[gap.last].append(history)
    for last, group in asked.items():
        found = pipeline.store.last_values([READINGS], last - profile.silent.known, last)[READINGS]
        for history in group:
            if previous := found.get(history.device):
                histories[history.device] = replace(history, rows=[previous[0], *history.rows])


def _late(
    windows: WindowRange,
    histories: _Histories,
    computed: Collection[datetime],
    pipeline: Pipeline,
) -> Collection[tuple[str, datetime]]:
    """Return devices with the last row before a gap, if readings from the gap arrived late.

    Readings of a device with a slow clock arrive after their windows were computed. Only
    silences that the range shows or decides are checked.
    """
    profile = pipeline.profile
    asked: dict[datetime, tuple[Gap, set[str]]] = {}
    for history in histories.values():
        for gap in gaps_of(history.rows, profile):
            if (
                gap.raised_in >= windows.start
                and not windows.start <= gap.without[0] <= gap.without[-1] < windows.stop
                and gap.follows_known(profile.silent.known)
                and all(start in computed for start in gap.without)
            ):
                asked.setdefault(gap.last, (gap, set()))[1].add(history.device)
    late: set[tuple[str, datetime]] = set()
    for last, (gap, devices) in asked.items():
        found = pipeline.store.devices_with_raw(gap.without[0], gap.without[-1] + windows.length)
        late |= {(device, last) for device in found & devices}
    return late
