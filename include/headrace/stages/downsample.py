"""Downsampling: raw readings to one row a device and window, inside InfluxDB."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headrace.errors import RawDataGoneError
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.stages.markers import Marker, claim, write_markers
from headrace.stages.pipeline import Pipeline
from headrace.storage.flux_values import FluxValue

__all__ = ["Downsampled", "count_raw", "downsample", "downsample_params"]


@dataclass(frozen=True)
class Downsampled:
    """What downsampling a range came to.

    Parameters
    ----------
    windows, rows, readings
        How many of each.
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
        The run that computes it, for whoever wants to look it up.

    Raises
    ------
    RawDataGoneError
        If the range reaches back further than raw readings are kept: computing it would
        overwrite rows with less than they were made from.
    BadQueryError, AccessDeniedError, MissingResourceError, TransientError
        As `Pipeline.run`.
    """
    if windows.start < pipeline.oldest_raw():
        msg = (
            f"the raw readings of {windows} are gone: they are kept for "
            f"{pipeline.raw_retention}. Its rows are left as they are"
        )
        raise RawDataGoneError(msg)
    # Counted before the values are read: a reading that arrives in between makes the
    # count too small, never too large, so the next reconcile sees that it is there.
    readings = count_raw(windows, pipeline)
    optional = _optional(pipeline.profile)
    if optional:
        _forget(windows, pipeline)
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
    """Parameters of ``downsample.flux`` for a range."""
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
    """How many raw readings each window holds; windows without any are left out."""
    params = {**pipeline.range_params(windows), "counted": pipeline.profile.counted_field}
    return {row["_time"]: row["_value"] for row in pipeline.run("count_raw.flux", params)}


def _optional(profile: Profile) -> list[str]:
    return [name for name, spec in profile.fields.items() if not spec.required]


def _forget(windows: WindowRange, pipeline: Pipeline) -> None:
    """Delete markers and rows before they are computed again.

    A value that a row had, and that its last reading no longer has, can't be overwritten.
    The markers go first: whatever happens in between, the windows count as missing.
    """
    buckets = pipeline.profile.buckets
    pipeline.influx.delete(buckets.quality, windows.start, windows.stop, "window")
    measurement = pipeline.profile.measurement
    pipeline.influx.delete(buckets.downsampled, windows.start, windows.stop, measurement)
