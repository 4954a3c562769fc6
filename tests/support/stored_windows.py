"""Raw readings, rows, markers and published changes in memory: a bucket without a server.

It answers the queries for alarm changes as the Flux files do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from headrace.models.alarm import AlarmState, ChangeKey, PublishedChange
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.alarm_changes import compare_changes
from headrace.stages.pipeline import Pipeline

__all__ = ["StoredWindows"]

#: Levels of a row by the name of their field.
Levels = Mapping[str, str | None]


@dataclass
class StoredWindows:
    """The state of an installation, as the stages see it.

    Parameters
    ----------
    profile
        Rules and windows.
    raw
        Levels of the raw readings by device and window.
    """

    profile: Profile
    raw: dict[tuple[str, datetime], Levels] = field(default_factory=dict)
    rows: dict[tuple[str, datetime], Levels] = field(default_factory=dict)
    markers: set[datetime] = field(default_factory=set)
    published: dict[ChangeKey, PublishedChange] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    raw_retention: timedelta = timedelta(days=30)

    def compute(self, windows: WindowRange) -> list[PublishedChange]:
        """Downsample a range and publish its changes, as the stages do."""
        starts = set(windows.starts())
        self.rows = {key: row for key, row in self.rows.items() if key[1] not in starts}
        self.rows |= {key: row for key, row in self.raw.items() if key[1] in starts}
        self.markers |= starts
        return self.publish(windows)

    def publish(self, windows: WindowRange) -> list[PublishedChange]:
        """Publish the changes of a range."""
        rows = self._rows_between(windows.start, windows.stop)
        # The timestamp of a record is at least the end of its window.
        told = {key: item for key, item in self.published.items() if key[2] >= windows.start}
        found = compare_changes(windows, rows, told, cast("Pipeline", self))
        for item in found.news:
            known = self.published.get(item.change.key)
            assert item.revision == (0 if known is None else known.revision + 1)
            self.published[item.change.key] = item
        return list(found.news)

    def standing(self) -> set[tuple[str, str, datetime, str, datetime]]:
        """Return a consumer's final changes: device, rule, window, state, since."""
        return {
            (item.device, item.rule, item.window_start, item.state.value, item.since)
            for item in (known.change for known in self.published.values())
            if item.state is not AlarmState.WITHDRAWN
        }

    def run(self, file: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answer a query."""
        self.queries.append(file)
        answers: dict[str, Callable[[Mapping[str, Any]], list[dict[str, Any]]]] = {
            "last_before.flux": lambda params: self._edge(params, max),
            "first_after.flux": lambda params: self._edge(params, min),
            "windows.flux": self._markers_between,
            "devices_with_raw.flux": self._devices_with_raw,
        }
        return answers[file](params)

    def range_params(self, windows: WindowRange) -> dict[str, Any]:
        """Return the parameters that select a range of windows."""
        return {"start": windows.start, "stop": windows.stop, "window": windows.length}

    def _rows_between(self, start: datetime, stop: datetime) -> list[dict[str, Any]]:
        return [
            {"_time": window, self.profile.id_field: device, "readings": 1, **levels}
            for (device, window), levels in sorted(self.rows.items(), key=lambda item: item[0][1])
            if start <= window < stop
        ]

    def _edge(
        self, params: Mapping[str, Any], edge: Callable[[Iterable[datetime]], datetime]
    ) -> list[dict[str, Any]]:
        found: dict[str, dict[datetime, Any]] = {}
        for row in self._rows_between(params["start"], params["stop"]):
            if (value := row.get(params["field"])) is not None:
                found.setdefault(row[self.profile.id_field], {})[row["_time"]] = value
        return [
            {self.profile.id_field: device, "_time": (time := edge(values)), "_value": values[time]}
            for device, values in found.items()
        ]

    def _markers_between(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        known = {"settled": True, "rows": 1, "readings": 1, "published": 1}
        return [
            {"_time": start, **known}
            for start in self.markers
            if params["start"] <= start < params["stop"]
        ]

    def _devices_with_raw(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {self.profile.id_field: device}
            for device in {
                device for device, window in self.raw if params["start"] <= window < params["stop"]
            }
        ]
