"""Computes one row per device and window from the raw readings."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.models.marker import Marker
from headrace.models.window import WindowRange
from headrace.stages.clocks import await_end, read_clocks
from headrace.stages.pipeline import Pipeline
from headrace.stages.ranges import check_range

__all__ = ["Downsampled", "downsample"]


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
        Profile, stores and clients.
    settled
        Whether the sink had written all readings of the range.
    run
        The Airflow run that computes it, as ``<DAG id>/<run id>``.

    Raises
    ------
    RangeNotOverError
        If the range has not ended; see `headrace.stages.clocks.await_end`.
    RawDataGoneError
        If the range reaches beyond the kept raw readings.
    TransientError, PermanentError
        As `headrace.stages.window_store.WindowStore`.
    """
    store = pipeline.store
    clocks = read_clocks(pipeline)
    await_end(windows, clocks)
    check_range(windows, windows.stop, clocks.later - pipeline.raw_retention)
    # Count before reading the values. A reading that arrives in between makes the count too
    # small, never too large, so the next reconcile run finds it.
    readings = store.count_raw(windows)
    # Until this run has published the windows, no other run publishes them.
    store.claim(windows, run)
    rows = store.downsample(windows)
    store.record_computed(
        [
            Marker(start, settled, rows.get(start, 0), readings.get(start, 0), run)
            for start in windows.starts()
        ]
    )
    return Downsampled(len(windows), sum(rows.values()), sum(readings.values()))
