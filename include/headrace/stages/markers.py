"""Markers: what is known of a computed window, in the bucket of quality data.

A window that was computed and held nothing has a marker; a missing one has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from headrace.models.reading import epoch_ns
from headrace.models.window import WindowRange
from headrace.stages.pipeline import Pipeline

__all__ = ["NOT_PUBLISHED", "Marker", "read_markers", "write_markers", "write_published"]

#: `published` of a window whose rows were computed and not yet compared with the topic.
NOT_PUBLISHED = -1


@dataclass(frozen=True)
class Marker:
    """A computed window.

    Parameters
    ----------
    start
        The window's start.
    settled
        Whether the sink had written everything that Kafka held when the window closed.
    rows
        Devices that reported.
    readings
        Raw readings that the rows were made from.
    run
        The run that computed it, as ``<DAG id>/<run id>``.
    published
        Rows that consumers have, or `NOT_PUBLISHED`.
    """

    start: datetime
    settled: bool
    rows: int
    readings: int
    run: str
    published: int = NOT_PUBLISHED


def write_markers(markers: Iterable[Marker], pipeline: Pipeline) -> None:
    """Write markers, over those that are there."""
    lines = [
        f"window settled={str(marker.settled).lower()},rows={marker.rows}i,"
        f'readings={marker.readings}i,published={marker.published}i,run="{_text(marker.run)}" '
        f"{epoch_ns(marker.start)}"
        for marker in markers
    ]
    pipeline.influx.write(pipeline.profile.buckets.quality, "\n".join(lines).encode())


def write_published(published: Mapping[datetime, int], pipeline: Pipeline) -> None:
    """Note how many rows of each window consumers have."""
    lines = [f"window published={rows}i {epoch_ns(start)}" for start, rows in published.items()]
    pipeline.influx.write(pipeline.profile.buckets.quality, "\n".join(lines).encode())


def read_markers(windows: WindowRange, pipeline: Pipeline) -> dict[datetime, Marker]:
    """Markers of a range, by the window's start."""
    return {
        row["_time"]: Marker(
            row["_time"],
            bool(row["settled"]),
            row["rows"],
            row["readings"],
            row.get("run") or "",
            row["published"],
        )
        for row in pipeline.run("windows.flux", pipeline.range_params(windows))
        # A marker that only `published` is left of belongs to a window that was forgotten.
        if row.get("settled") is not None
    }


def _text(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
