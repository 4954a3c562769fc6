"""Raw readings, rows, markers and published changes in memory: a store without a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from headrace.models.alarm import AlarmChange, AlarmState, ChangeKey, PublishedChange
from headrace.models.alarm_derivation import compare_changes
from headrace.models.marker import NOT_PUBLISHED, Marker
from headrace.models.row import READINGS, StoredRow
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.profile_rules import AlarmRule
from headrace.stages.alarm_history import read_history
from headrace.stages.pipeline import Pipeline
from headrace.stages.window_store import Neighbours, Values

__all__ = ["NO_KAFKA", "NO_QUALITY", "StoredWindows"]

#: For stages that use neither.
NO_QUALITY: Any = None
NO_KAFKA: Any = None

#: Fields of a row: levels by the name of the field they are written to.
Levels = Mapping[str, str | None]


@dataclass
class StoredWindows:
    """A `headrace.stages.window_store.WindowStore` that keeps everything in memory.

    The levels of a row come with its readings, so `evaluate` changes nothing.

    Parameters
    ----------
    profile
        Rules and windows.
    raw
        Levels of the raw readings, by device and window.
    computed
        Windows with a marker.
    claimed
        The run that computes the window or computed it last, by window.
    published
        Published changes.
    recorded
        Changes in the record of active alarms.
    queries
        Names of the called methods, in order.
    """

    profile: Profile
    raw: dict[tuple[str, datetime], Levels] = field(default_factory=dict)
    stored: dict[tuple[str, datetime], Levels] = field(default_factory=dict)
    computed: set[datetime] = field(default_factory=set)
    claimed: dict[datetime, str] = field(default_factory=dict)
    counts: dict[datetime, Marker] = field(default_factory=dict)
    published: dict[ChangeKey, PublishedChange] = field(default_factory=dict)
    recorded: dict[ChangeKey, PublishedChange] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    raw_retention: timedelta = timedelta(days=30)

    @property
    def pipeline(self) -> Pipeline:
        """A pipeline over this store, without Kafka."""
        return Pipeline(self.profile, self, NO_QUALITY, NO_KAFKA, self.raw_retention)

    def compute(self, windows: WindowRange) -> list[PublishedChange]:
        """Downsample a range and publish its changes, as the stages do."""
        self.downsample(windows)
        self.computed |= set(windows.starts())
        return self.publish(windows)

    def publish(self, windows: WindowRange) -> list[PublishedChange]:
        """Publish the changes of a range."""
        # No record is stamped earlier than the end of its window, and some are not later.
        told = {key: item for key, item in self.published.items() if key[2] >= windows.start}
        rows = self._rows_between(windows.start, windows.stop)
        history = read_history(windows, rows, told, self.pipeline)
        found = compare_changes(history, told, self.profile)
        for item in found.news:
            known = self.published.get(item.change.key)
            assert item.revision == (0 if known is None else known.revision + 1)
            self.published[item.change.key] = item
        return list(found.news)

    def standing(self) -> set[tuple[str, str, datetime, str, datetime]]:
        """What a consumer has in the end: device, rule, window, state, since."""
        return {
            (item.device, item.rule, item.window_start, item.state.value, item.since)
            for item in (known.change for known in self.published.values())
            if item.state is not AlarmState.WITHDRAWN
        }

    # As `WindowStore`.
    def now(self) -> datetime:
        raise AssertionError

    def count_raw(self, windows: WindowRange) -> dict[datetime, int]:
        self.queries.append("count_raw")
        return self._numbers(windows, self.raw)

    def claim(self, windows: WindowRange, run: str) -> None:
        for start in windows.starts():
            self.claimed[start] = run
            marker = self.counts.get(start)
            if marker is not None:
                self.counts[start] = replace(
                    marker, settled=False, published=NOT_PUBLISHED, run=run
                )

    def downsample(self, windows: WindowRange) -> dict[datetime, int]:
        self.queries.append("downsample")
        starts = set(windows.starts())
        self.stored = {key: row for key, row in self.stored.items() if key[1] not in starts}
        self.stored |= {key: row for key, row in self.raw.items() if key[1] in starts}
        return self._numbers(windows, self.stored)

    def evaluate(self, rule: AlarmRule, windows: WindowRange) -> int:
        self.queries.append("evaluate")
        rows = self._rows_between(windows.start, windows.stop)
        return sum(row.values.get(rule.writes) is not None for row in rows)

    def rows(self, windows: WindowRange) -> list[StoredRow]:
        self.queries.append("rows")
        return self._rows_between(windows.start, windows.stop)

    def neighbours(
        self, windows: WindowRange, fields: Sequence[str], since: datetime
    ) -> Neighbours:
        self.queries.append("neighbours")
        return Neighbours(
            {name: self._edge(name, max, since, windows.start) for name in fields},
            {name: self._edge(name, min, windows.stop) for name in fields},
        )

    def last_values(
        self, fields: Sequence[str], start: datetime, stop: datetime
    ) -> dict[str, Values]:
        self.queries.append("last_values")
        return {name: self._edge(name, max, start, stop) for name in fields}

    def first_values(self, field: str, start: datetime) -> Values:
        self.queries.append("first_values")
        return self._edge(field, min, start)

    def devices_with_raw(self, start: datetime, stop: datetime) -> set[str]:
        self.queries.append("devices_with_raw")
        return {device for device, window in self.raw if start <= window < stop}

    def markers(self, windows: WindowRange) -> dict[datetime, Marker]:
        self.queries.append("markers")
        return {
            start: self.counts.get(start) or Marker(start, True, 1, 1, "", published=1)
            for start in windows.starts()
            if start in self.computed
        }

    def record_computed(self, markers: Collection[Marker]) -> None:
        self.counts |= {marker.start: marker for marker in markers}
        self.computed |= {marker.start for marker in markers}

    def record_published(
        self, rows: Mapping[datetime, int], revisions: Mapping[datetime, int]
    ) -> None:
        for start, number in rows.items():
            self.counts[start] = replace(
                self.counts[start], published=number, revision=revisions.get(start, 0)
            )

    def record_changes(self, changes: Collection[PublishedChange]) -> None:
        self.recorded |= {item.change.key: item for item in changes}

    def active_alarms(self, start: datetime, stop: datetime) -> list[AlarmChange]:
        return [
            item.change
            for item in self.recorded.values()
            if item.change.state is AlarmState.RAISED and start <= item.change.window_start < stop
        ]

    def _numbers(
        self, windows: WindowRange, keys: Iterable[tuple[str, datetime]]
    ) -> dict[datetime, int]:
        starts = set(windows.starts())
        return dict(Counter(start for _, start in keys if start in starts))

    def _rows_between(self, start: datetime, stop: datetime | None = None) -> list[StoredRow]:
        found = [
            StoredRow(device, window, {READINGS: 1, **levels})
            for (device, window), levels in self.stored.items()
            if start <= window and (stop is None or window < stop)
        ]
        return sorted(found, key=lambda row: row.start)

    def _edge(
        self,
        name: str,
        edge: Callable[[Iterable[datetime]], datetime],
        start: datetime,
        stop: datetime | None = None,
    ) -> Values:
        found: dict[str, dict[datetime, Any]] = {}
        for row in self._rows_between(start, stop):
            if (value := row.values.get(name)) is not None:
                found.setdefault(row.device, {})[row.start] = value
        return {device: ((time := edge(values)), values[time]) for device, values in found.items()}
