"""Downsampling: InfluxDB computes one row per device and window from the raw readings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.clocks import await_end, read_clocks
from headrace.stages.markers import Marker, claim, write_markers
from headrace.stages.pipeline import Pipeline
from headrace.stages.ranges import check_range
from headrace.storage.flux_values import FluxValue

__all__ = ["Downsampled", "count_raw", "downsample", "downsample_params"]


@dataclass(frozen=True)
class Downsampled:
    """The result of downsampling a range.

    Parameters
    ----------
    windows, rows, readings
        Number of each.
    """

    windows: int
    rows: int
    readings: int


def downsample(windows: WindowRange, pipeline: Pipeline, *, settled: bool, run: str) -> Downsampled:
    """Compute the rows of a range and mark its windows as computed.

    Parameters
    ----------
    windows
        The range.
    pipeline
        Profile and clients.
    settled
        Whether the sink had written everything that belongs to the range.
    run
        The Airflow run that computes it, as ``<DAG id>/<run id>``.

    Raises
    ------
    RangeNotOverError
        If the range is not over; see `headrace.stages.clocks.await_end`.
    RawDataGoneError
        If the range reaches beyond the kept raw readings.
    BadQueryError, AccessDeniedError, MissingResourceError, TransientError
        As `Pipeline.run`.
    """
    clocks = read_clocks(pipeline)
    await_end(windows, clocks)
    check_range(windows, windows.stop, clocks.later - pipeline.raw_retention)
    # Count before reading the values. A reading that arrives in between makes the count too
    # small, never too large, so the next reconcile finds it.
    readings = count_raw(windows, pipeline)
    optional = _optional(pipeline.profile)
    if optional:
        _delete_rows(windows, pipeline)
    claim(windows, run, pipeline)
    params = downsample_params(windows, pipeline)
    results = pipeline.run("downsample.flux", params)
    for field in optional:
        pipeline.run("downsample_optional.flux", {**params, "field": field})
    rows = {row["_time"]: row["_value"] for row in results}
    markers = [
        Marker(start, settled, rows.get(start, 0), readings.get(start, 0), run)
        for start in windows.starts()
    ]
    write_markers(markers, pipeline)
    return Downsampled(len(windows), sum(rows.values()), sum(readings.values()))


def downsample_params(windows: WindowRange, pipeline: Pipeline) -> dict[str, FluxValue]:
    """Return the parameters of ``downsample.flux`` for a range."""
    profile = pipeline.profile
    return {
        **pipeline.range_params(windows),
        "counted": profile.counted_field,
        "optional": _optional(profile),
        "id": profile.id_field,
        "tags": dict(profile.tags),
        "tagged": pipeline.tagged,
        "series": ["_measurement", *pipeline.tagged],
    }


def count_raw(windows: WindowRange, pipeline: Pipeline) -> dict[datetime, int]:
    """Count the raw readings of each window; windows without readings are left out."""
    params = {**pipeline.range_params(windows), "counted": pipeline.profile.counted_field}
    return {row["_time"]: row["_value"] for row in pipeline.run("count_raw.flux", params)}


def _optional(profile: Profile) -> list[str]:
    return [name for name, spec in profile.fields.items() if not spec.required]


def _delete_rows(windows: WindowRange, pipeline: Pipeline) -> None:
    """Delete markers and rows before they are computed again.

    A row may have a value that its last reading no longer has; writing does not remove it.
    Markers are deleted first: if the task dies in between, the windows count as missing.
    """
    buckets = pipeline.profile.buckets
    pipeline.influx.delete(buckets.quality, windows.start, windows.stop, "window")
    measurement = pipeline.profile.measurement
    pipeline.influx.delete(buckets.downsampled, windows.start, windows.stop, measurement)
