"""The store of windows in InfluxDB 2.7.

It contains everything specific to InfluxDB: the Flux files, the columns of their results, the
points of markers and alarm changes, and the deletions before windows are computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from headrace.models.alarm import AlarmChange, AlarmState, PublishedChange
from headrace.models.device_time import epoch_ns
from headrace.models.marker import NOT_PUBLISHED, Marker
from headrace.models.row import StoredRow
from headrace.models.window import WindowRange, floor, parse_time, rfc3339
from headrace.profile_rules import AlarmRule
from headrace.stages.window_store import Neighbours, Values
from headrace.storage.flux_files import FluxFiles, range_params
from headrace.storage.flux_values import FluxValue, Row
from headrace.storage.line_protocol import point_line

__all__ = ["InfluxWindowStore"]

_MARKER = "window"
_CHANGE = "alarm"
#: Columns of a result that are not part of a row.
_NOT_VALUES = ("_time", "result", "table")
#: Unreachable limits, for rules with only one limit.
_UNREACHABLE = {"below": -sys.float_info.max, "above": sys.float_info.max}
#: End of queries without an end. The current time would miss rows if the clock is slow.
_END_OF_TIME = datetime(2200, 1, 1, tzinfo=UTC)


class InfluxWindowStore:
    """Implements `headrace.stages.window_store.WindowStore`.

    Parameters
    ----------
    flux
        The Flux files, and the profile.
    """

    def __init__(self, flux: FluxFiles) -> None:
        self._flux = flux
        self._profile = flux.profile
        self._id = flux.profile.id_field
        #: Columns of a row that are tags.
        self._tagged = [self._id, *self._profile.tags]
        self._optional = [name for name, spec in self._profile.fields.items() if not spec.required]

    def now(self) -> datetime:
        """Return the time by InfluxDB's clock."""
        (row,) = self._flux.run("server_time.flux", {})
        moment: datetime = row["_time"]
        return moment

    def count_raw(self, windows: WindowRange) -> dict[datetime, int]:
        """Count the raw readings of each window."""
        params = {**range_params(windows), "counted": self._profile.counted_field}
        return {row["_time"]: row["_value"] for row in self._flux.run("count_raw.flux", params)}

    def claim(self, windows: WindowRange, run: str) -> None:
        """Mark windows as being computed by a run and delete their old results."""
        if self._optional:
            self._delete_computed(windows)
        fields: dict[str, bool | int | str] = {
            "settled": False,
            "published": NOT_PUBLISHED,
            "run": run,
        }
        self._flux.write_quality(
            point_line(_MARKER, {}, fields, epoch_ns(start)) for start in windows.starts()
        )

    def _delete_computed(self, windows: WindowRange) -> None:
        """Delete markers and rows.

        A row can have a value that its new last reading lacks, and writing does not remove it.
        Markers are deleted first: if the task dies in between, the windows count as missing.
        """
        buckets = self._profile.buckets
        self._flux.delete(buckets.quality, windows, _MARKER)
        self._flux.delete(buckets.downsampled, windows, self._profile.measurement)

    def downsample(self, windows: WindowRange) -> dict[datetime, int]:
        """Compute the rows of windows."""
        params: dict[str, FluxValue] = {
            **range_params(windows),
            "counted": self._profile.counted_field,
            "optional": self._optional,
            "id": self._id,
            "tags": dict(self._profile.tags),
            "tagged": self._tagged,
            "series": ["_measurement", *self._tagged],
        }
        results = self._flux.run("downsample.flux", params)
        for field in self._optional:
            self._flux.run("downsample_optional.flux", {**params, "field": field})
        return {row["_time"]: row["_value"] for row in results}

    def evaluate(self, rule: AlarmRule, windows: WindowRange) -> int:
        """Run the Flux file of a rule."""
        rows = self._flux.run(
            rule.flux,
            {
                **range_params(windows),
                **_UNREACHABLE,
                **rule.params,
                "tagged": self._tagged,
                "writes": rule.writes,
                "level": rule.level,
                "normal": rule.normal,
            },
        )
        return sum(row["_value"] for row in rows)

    def rows(self, windows: WindowRange) -> list[StoredRow]:
        """Return the rows of windows, by time."""
        found = self._flux.run("rows.flux", {**range_params(windows), "id": self._id})
        return sorted(map(self._row, found), key=lambda row: row.start)

    def _row(self, row: Row) -> StoredRow:
        device, start = row.pop(self._id), row["_time"]
        for name in _NOT_VALUES:
            row.pop(name, None)
        return StoredRow(device, start, row)

    def neighbours(
        self, windows: WindowRange, fields: Sequence[str], since: datetime
    ) -> Neighbours:
        """Return the values next to a range, with one query."""
        params = {**range_params(windows), "fields": fields, "since": since, "end": _END_OF_TIME}
        rows = self._flux.run("neighbours.flux", params)
        before, after = (
            self._by_field(fields, (row for row in rows if row["result"] == side))
            for side in ("before", "after")
        )
        return Neighbours(before, after)

    def last_values(
        self, fields: Sequence[str], start: datetime, stop: datetime
    ) -> dict[str, Values]:
        """Return by field the last value of every device."""
        params: dict[str, FluxValue] = {"start": start, "stop": stop, "fields": fields}
        return self._by_field(fields, self._flux.run("last_before.flux", params))

    def first_values(self, field: str, start: datetime) -> Values:
        """Return the first value of every device from a time on."""
        params: dict[str, FluxValue] = {"start": start, "stop": _END_OF_TIME, "field": field}
        rows = self._flux.run("first_after.flux", params)
        return {row[self._id]: (row["_time"], row["_value"]) for row in rows}

    def _by_field(self, fields: Iterable[str], rows: Iterable[Row]) -> dict[str, Values]:
        found: dict[str, dict[str, tuple[datetime, object]]] = {name: {} for name in fields}
        for row in rows:
            found[row["_field"]][row[self._id]] = row["_time"], row["_value"]
        return dict(found)

    def devices_with_raw(self, start: datetime, stop: datetime) -> set[str]:
        """Return the devices that have raw readings."""
        params: dict[str, FluxValue] = {
            "start": start,
            "stop": stop,
            "counted": self._profile.counted_field,
        }
        return {row[self._id] for row in self._flux.run("devices_with_raw.flux", params)}

    def markers(self, windows: WindowRange) -> dict[datetime, Marker]:
        """Return the markers of computed windows."""
        return {
            row["_time"]: Marker(
                row["_time"],
                bool(row["settled"]),
                row["rows"],
                row["readings"],
                row.get("run") or "",
                row["published"],
                row.get("revision") or 0,
            )
            for row in self._flux.run("windows.flux", range_params(windows))
            # A claimed window has no count of readings. Shorter windows of an earlier profile are
            # not windows of this range.
            if row.get("readings") is not None
            and floor(row["_time"], windows.length) == row["_time"]
        }

    def record_computed(self, markers: Collection[Marker]) -> None:
        """Store the markers of computed windows."""
        self._flux.write_quality(
            point_line(
                _MARKER,
                {},
                {
                    "settled": marker.settled,
                    "rows": marker.rows,
                    "readings": marker.readings,
                    "published": marker.published,
                    "run": marker.run,
                },
                epoch_ns(marker.start),
            )
            for marker in markers
        )

    def record_published(
        self, rows: Mapping[datetime, int], revisions: Mapping[datetime, int]
    ) -> None:
        """Store the number of published rows of each window, and their highest revision."""
        self._flux.write_quality(
            point_line(
                _MARKER,
                {},
                {"published": count, "revision": revisions.get(start, 0)},
                epoch_ns(start),
            )
            for start, count in rows.items()
        )

    def record_changes(self, changes: Collection[PublishedChange]) -> None:
        """Store published alarm changes."""
        if changes:
            self._flux.write_quality(self._change_line(item.change) for item in changes)

    def _change_line(self, change: AlarmChange) -> str:
        fields = {
            "state": change.state.value,
            "alarm": change.level,
            "since": rfc3339(change.since),
        }
        if change.state is AlarmState.WITHDRAWN:
            # So that queries for the last value skip withdrawn changes.
            fields = dict.fromkeys(fields, change.state.value)
        tags = {self._id: change.device, "rule": change.rule}
        return point_line(_CHANGE, tags, fields, epoch_ns(change.window_start))

    def active_alarms(self, start: datetime, stop: datetime) -> list[AlarmChange]:
        """Return the newest changes that raised an alarm."""
        return [
            AlarmChange(
                device=row[self._id],
                rule=row["rule"],
                level=row["alarm"],
                state=AlarmState(row["state"]),
                since=parse_time(row["since"]),
                window_start=row["_time"],
            )
            for row in self._flux.run("standing_alarms.flux", {"start": start, "stop": stop})
        ]
