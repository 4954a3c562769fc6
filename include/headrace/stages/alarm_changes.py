"""Which changes of alarms consumers have to be told of, for a range of windows.

A range can't be looked at alone: whether its first row is a change depends on the row
before it, and what it changes reaches up to each device's next row after it. So changes
are derived, and compared with what was published, over just that stretch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headrace.models.alarm import (
    AlarmChange,
    ChangeKey,
    DeviceHistory,
    PublishedChange,
    changes_of,
    difference,
    read_change,
    silent_windows,
)
from headrace.models.window import WindowRange
from headrace.stages.markers import read_markers
from headrace.stages.pipeline import Pipeline
from headrace.stages.published import records_since
from headrace.storage.flux_values import Row

__all__ = ["changes_to_publish"]

_READINGS = "readings"
_QUERIES_AT_ONCE = 2


@dataclass
class _Surroundings:
    """What is known of a device around the range."""

    before: datetime | None = None
    levels_before: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[datetime, dict[str, str]]] = field(default_factory=list)
    after: datetime | None = None
    levels_after: dict[str, str] = field(default_factory=dict)

    def history(self, device: str) -> DeviceHistory:
        following = [] if self.after is None else [(self.after, self.levels_after)]
        return DeviceHistory(
            device, self.before, self.levels_before, [*sorted(self.rows), *following]
        )


def changes_to_publish(
    windows: WindowRange, rows: Iterable[Mapping[str, Any]], pipeline: Pipeline
) -> list[PublishedChange]:
    """Compare the changes that follow from the stored rows with what was published.

    Parameters
    ----------
    windows
        The range.
    rows
        Its rows as the bucket has them: ``_time`` is the window's start.
    pipeline
        Profile and clients.
    """
    profile = pipeline.profile
    devices = _look_around(windows, rows, pipeline)
    histories = [seen.history(device) for device, seen in devices.items()]
    known_to = _known_to(windows, pipeline)
    computed = _computed(windows, histories, known_to, pipeline)
    # Beyond the first row after the range nothing was looked at.
    reaches = {
        device: seen.after + windows.length
        for device, seen in devices.items()
        if seen.after is not None
    }

    def looked_at(change: AlarmChange) -> bool:
        return windows.start <= change.window_start < reaches.get(change.device, known_to)

    derived = [
        change
        for history in histories
        for change in changes_of(history, profile, computed)
        if looked_at(change)
    ]
    published: dict[ChangeKey, PublishedChange] = {}
    for record in records_since(windows, profile.topics.alarms, pipeline.kafka):
        known = read_change(profile, record.value)
        if looked_at(known.change):
            published[known.change.key] = known
    return difference(derived, published)


def _look_around(
    windows: WindowRange, rows: Iterable[Mapping[str, Any]], pipeline: Pipeline
) -> dict[str, _Surroundings]:
    profile = pipeline.profile
    device_of = profile.id_field
    devices: dict[str, _Surroundings] = defaultdict(_Surroundings)
    rule_of = {rule.writes: rule.rule for rule in profile.alarms}
    for row in rows:
        levels = {rule: row[name] for name, rule in rule_of.items() if row.get(name) is not None}
        devices[row[device_of]].rows.append((row["_time"], levels))
    before, after = _neighbours([_READINGS, *rule_of], windows, pipeline)
    for row in before[_READINGS]:
        devices[row[device_of]].before = row["_time"]
    for row in after[_READINGS]:
        devices[row[device_of]].after = row["_time"]
    for name, rule in rule_of.items():
        for row in before[name]:
            devices[row[device_of]].levels_before[rule] = row["_value"]
        for row in after[name]:
            seen = devices[row[device_of]]
            if row["_time"] == seen.after:
                seen.levels_after[rule] = row["_value"]
    return devices


def _neighbours(
    fields: Sequence[str], windows: WindowRange, pipeline: Pipeline
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """The last values before a range and the first ones after it, of each field and device."""
    back = {"start": windows.start - pipeline.raw_retention, "stop": windows.start}
    ahead = {"start": windows.stop, "stop": max(windows.stop, datetime.now(UTC)) + windows.length}
    # Each is a small query that keeps one core of InfluxDB's busy.
    with ThreadPoolExecutor(_QUERIES_AT_ONCE) as pool:
        before, after = (
            {field: pool.submit(pipeline.run, file, {**around, "field": field}) for field in fields}
            for file, around in (("last_before.flux", back), ("first_after.flux", ahead))
        )
    return (
        {field: asked.result() for field, asked in before.items()},
        {field: asked.result() for field, asked in after.items()},
    )


def _known_to(windows: WindowRange, pipeline: Pipeline) -> datetime:
    """Up to where windows are computed: the end of the range, or of a later window."""
    params = {"start": windows.stop, "stop": max(windows.stop, datetime.now(UTC)) + windows.length}
    newest: list[datetime] = [row["_time"] for row in pipeline.run("newest_window.flux", params)]
    return max([windows.stop, *(start + windows.length for start in newest)])


def _computed(
    windows: WindowRange, histories: Iterable[DeviceHistory], known_to: datetime, pipeline: Pipeline
) -> Container[datetime]:
    """Which windows are computed, of those in which a device may have fallen silent.

    After Airflow was away, rows are far apart because windows are missing, not because
    devices were silent.
    """
    known = set(windows.starts())
    asked = {
        start
        for history in histories
        for silence in silent_windows(history, pipeline.profile)
        # One that showed before the range matters only if it ends here.
        if silence[-1] < known_to and (silence[-1] >= windows.start or history.rows)
        for start in silence
    } - known
    if asked:
        around = WindowRange(min(asked), max(asked) + windows.length, windows.length)
        known |= read_markers(around, pipeline).keys()
    return known
