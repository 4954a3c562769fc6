"""Markers: one point per computed window, in the bucket of quality data.

A window that was computed and held no readings has a marker; a missing window has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from headrace.models.reading import epoch_ns
from headrace.models.window import WindowRange, floor
from headrace.stages.pipeline import Pipeline

__all__ = ["NOT_PUBLISHED", "Marker", "claim", "read_markers", "write_markers", "write_published"]

#: `published` of a window whose rows were computed and not yet published.
NOT_PUBLISHED = -1


@dataclass(frozen=True)
class Marker:
    """The marker of a computed window.

    Parameters
    ----------
    start
        The window's start.
    settled
        Whether the sink had written everything that Kafka held when the window ended.
    rows
        Devices that reported.
    readings
        Raw readings that the rows were computed from.
    run
        The run that computed it last, or is about to: ``<DAG id>/<run id>``.
    published
        Number of published rows, or `NOT_PUBLISHED`.
    revision
        Highest revision of these rows: above 0 if one was corrected.
    """

    start: datetime
    settled: bool
    rows: int
    readings: int
    run: str
    published: int = NOT_PUBLISHED
    revision: int = 0


def claim(windows: WindowRange, run: str, pipeline: Pipeline) -> None:
    """Mark windows as being computed by a run: until it has published them, no other run does.

    A run that dies leaves them unsettled and unpublished; the next reconcile finds them.
    """
    lines = [
        f'window settled=false,published={NOT_PUBLISHED}i,run="{_text(run)}" {epoch_ns(start)}'
        for start in windows.starts()
    ]
    pipeline.influx.write(pipeline.profile.buckets.quality, "\n".join(lines).encode())


def write_markers(markers: Iterable[Marker], pipeline: Pipeline) -> None:
    """Write markers, over existing ones."""
    lines = [
        f"window settled={str(marker.settled).lower()},rows={marker.rows}i,"
        f'readings={marker.readings}i,published={marker.published}i,run="{_text(marker.run)}" '
        f"{epoch_ns(marker.start)}"
        for marker in markers
    ]
    pipeline.influx.write(pipeline.profile.buckets.quality, "\n".join(lines).encode())


def write_published(
    published: Mapping[datetime, int], revisions: Mapping[datetime, int], pipeline: Pipeline
) -> None:
    """Set the number of published rows of each window, and their highest revision."""
    lines = [
        f"window published={rows}i,revision={revisions.get(start, 0)}i {epoch_ns(start)}"
        for start, rows in published.items()
    ]
    pipeline.influx.write(pipeline.profile.buckets.quality, "\n".join(lines).encode())


def read_markers(windows: WindowRange, pipeline: Pipeline) -> dict[datetime, Marker]:
    """Return the markers of a range, by the window's start."""
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
        for row in pipeline.run("windows.flux", pipeline.range_params(windows))
        # A window that was only claimed is not computed. Windows of a profile that had shorter
        # ones are not windows of this range.
        if row.get("readings") is not None and floor(row["_time"], windows.length) == row["_time"]
    }


def _text(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
