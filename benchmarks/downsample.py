"""Measures one query for an hour of windows and one query per window.

An InfluxDB task runs one query per window. The comparison uses our Flux without the other
costs of a task: log, schedule and bookkeeping.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.filling import fill_influx
from benchmarks.results import OURS, Measured, Remark, Row, row_with_peer
from benchmarks.workplace import CountError, Workplace
from headrace.models.window import WindowRange, floor
from headrace.stages.downsample import downsample
from headrace.stages.factory import make_pipeline
from headrace.stages.pipeline import Pipeline
from headrace.storage.flux_values import FluxValue
from headrace.storage.influx import Influx, influx_address
from tests.support.installation import Installation

__all__ = ["NAMES", "hour_of_readings", "measure_downsample", "patient_pipeline", "run"]

NAMES = ("downsample.hour",)

_FLUX = Path(__file__).resolve().parent / "flux"
_DEVICES = 1000
_WINDOW = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_EVERY = timedelta(seconds=4)
_PATIENCE = timedelta(minutes=10)
_TASK = "query per window"
_ARTICLE = "article's query"


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Measure the stage and the task in turn, and the article's query."""
    del wanted
    devices = max(1, int(_DEVICES * place.size))
    runs: list[Measured] = []
    with place.installation() as installation, patient_pipeline(installation) as pipeline:
        windows = hour_of_readings(place, installation, devices, _EVERY)
        # The first run creates the series, which exist for live windows, and checks that both
        # methods write all rows.
        for by in (OURS, _TASK):
            _compute(by, windows, pipeline)
            _check_rows(windows, installation, devices)
            _forget_rows(windows, installation)
        for turn in range(place.repeats):
            for by in (OURS, _TASK, _ARTICLE):
                place.report(f"downsample, run {turn + 1} of {place.repeats}: {by}")
                meter = place.meter()
                if by == _ARTICLE:
                    seconds = _article(windows, installation)
                else:
                    seconds = _compute(by, windows, pipeline)
                used = meter.read()
                runs.append(Measured(by, seconds, {"influxdb_cpu_seconds": used.cpu["influxdb"]}))
                if by == OURS:
                    limit = used.limit()
        _check_rows(windows, installation, devices)
    return [
        row_with_peer(
            "downsample.hour",
            "s for 60 windows",
            runs,
            Remark(limit),
            more_is_better=False,
            only_shown=(_ARTICLE,),
        )
    ]


def hour_of_readings(
    place: Workplace, installation: Installation, devices: int, every: timedelta
) -> WindowRange:
    """Fill InfluxDB with an hour of readings; return its windows."""
    stop = floor(datetime.now(UTC), _WINDOW) - _WINDOW
    windows = WindowRange(stop - _HOUR, stop, _WINDOW)
    place.report(f"filling InfluxDB with an hour of {devices:,} generators")
    fill_influx(installation, windows.start, windows.stop, devices=devices, every=every)
    return windows


@contextmanager
def patient_pipeline(installation: Installation) -> Iterator[Pipeline]:
    """Yield the stages' clients, with a timeout for the largest range."""
    settings = installation.settings
    with Influx(influx_address(settings, "airflow"), timeout=_PATIENCE) as influx:
        yield make_pipeline(settings, installation.profile, influx, installation.kafka)


def measure_downsample(windows: WindowRange, pipeline: Pipeline) -> float:
    """Measure the seconds of the stage for a range, including its writes."""
    begun = time.monotonic()
    downsample(windows, pipeline, settled=True, run="benchmark/1")
    return time.monotonic() - begun


def _compute(by: str, windows: WindowRange, pipeline: Pipeline) -> float:
    return measure_downsample(windows, pipeline) if by == OURS else _one_by_one(windows, pipeline)


def _one_by_one(windows: WindowRange, pipeline: Pipeline) -> float:
    """Measure the seconds of one query per window, in sequence and without markers."""
    begun = time.monotonic()
    for window in windows.pieces(1):
        pipeline.store.downsample(window)
    return time.monotonic() - begun


def _article(windows: WindowRange, installation: Installation) -> float:
    """Measure the article's query, which writes nothing and returns only the last window."""
    profile = installation.profile
    params: dict[str, FluxValue] = {
        "bucket": profile.buckets.raw,
        "measurement": profile.measurement,
        "start": windows.start,
        "stop": windows.stop,
    }
    flux = (_FLUX / "article.flux").read_text(encoding="utf-8")
    begun = time.monotonic()
    with installation.admin_influx() as influx:
        influx.run(flux, params)
    return time.monotonic() - begun


def _check_rows(windows: WindowRange, installation: Installation, devices: int) -> None:
    with installation.pipeline() as pipeline:
        rows = pipeline.store.rows(windows)
    readings = sum(row.values["readings"] for row in rows)
    expected = devices * len(windows)
    per_window = _WINDOW // _EVERY
    if len(rows) != expected or readings != expected * per_window:
        msg = f"{len(rows):,} rows of {readings:,} readings, instead of {expected:,}"
        raise CountError(msg)


def _forget_rows(windows: WindowRange, installation: Installation) -> None:
    profile = installation.profile
    with installation.admin_influx() as influx:
        influx.delete(profile.buckets.downsampled, windows.start, windows.stop, profile.measurement)
