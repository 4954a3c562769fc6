"""Compares the cost of a reading in fleets of 10,000 and of 100 generators."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import timedelta

from benchmarks.bridge import measure_bridge
from benchmarks.downsample import hour_of_readings, measure_downsample, patient_pipeline
from benchmarks.results import OURS, Measured, Remark, Row, row_without_peer
from benchmarks.sink import measure_sink
from benchmarks.workplace import Workplace

__all__ = ["NAMES", "run"]

NAMES = ("growth",)

_FLEETS = (100, 10_000)
#: Enough that the extra cost of each device's first reading is a small part.
_BRIDGE_READINGS = 400_000
_SINK_READINGS = 1_000_000
#: The differences are a few percent, so each part is measured more often than other rows.
_MORE_OFTEN = 2
_EVERY = timedelta(seconds=15)
_MICROSECONDS = 1e6


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Measure bridge, sink and downsampling with both fleets, in turn."""
    del wanted
    place.warm_kafka()
    costs: dict[str, Callable[[int], float]] = {
        "bridge": lambda devices: _bridge(place, place.amount(_BRIDGE_READINGS), devices),
        "sink": lambda devices: _sink(place, place.amount(_SINK_READINGS), devices),
        "downsample": lambda devices: _downsample(place, devices),
    }
    runs = []
    growth, spread = {}, {}
    for part, cost in costs.items():
        measured: dict[int, list[float]] = {devices: [] for devices in _FLEETS}
        turns = place.repeats * _MORE_OFTEN
        for turn in range(turns):
            # Each fleet is first equally often, because servers change while they run.
            for devices in _FLEETS if turn % 2 == 0 else reversed(_FLEETS):
                place.report(f"growth, run {turn + 1} of {turns}: {part}, {devices:,} generators")
                each = cost(devices)
                measured[devices].append(each)
                details = {"generators": devices, "microseconds_a_reading": each}
                runs.append(Measured(f"{OURS} {part}", each, details))
        small, large = (statistics.median(measured[devices]) for devices in _FLEETS)
        growth[part] = large / small
        spread[part] = max(max(costs_of) / min(costs_of) for costs_of in measured.values())
    worst = max(growth, key=growth.__getitem__)
    listed = ", ".join(f"{part} {factor:.2f}" for part, factor in growth.items())
    remark = Remark(
        f"{worst} grows most ({listed})",
        if_missed=f"runs of the same fleet differ by up to x {spread[worst]:.2f}",
    )
    return [row_without_peer("growth", "cost ratio, 10,000 to 100", growth[worst], runs, remark)]


def _bridge(place: Workplace, count: int, devices: int) -> float:
    measured, _ = measure_bridge(
        place, OURS, lambda installation: installation.worker("bridge"), count, devices=devices
    )
    return measured.details["cpu_seconds"] / count * _MICROSECONDS


def _sink(place: Workplace, count: int, devices: int) -> float:
    measured, _ = measure_sink(
        place, OURS, lambda installation: installation.worker("sink"), count, devices=devices
    )
    return measured.details["cpu_seconds"] / measured.details["readings"] * _MICROSECONDS


def _downsample(place: Workplace, devices: int) -> float:
    """Measure the time per raw reading; both fleets have the same readings per generator."""
    with place.installation() as installation, patient_pipeline(installation) as pipeline:
        windows = hour_of_readings(place, installation, devices, _EVERY)
        readings = devices * (windows.stop - windows.start) // _EVERY
        return measure_downsample(windows, pipeline) / readings * _MICROSECONDS
