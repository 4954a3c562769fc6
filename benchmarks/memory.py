"""Measures the workers' memory: each alone at its highest rate, then both for half an hour."""

from __future__ import annotations

import statistics
import time

from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from benchmarks.bridge import measure_bridge, send_until
from benchmarks.meter import peak_megabytes, resident_megabytes
from benchmarks.path import MORE_THAN_ENOUGH, flow
from benchmarks.results import OURS, Measured, Remark, Row, row_without_peer
from benchmarks.sink import measure_sink
from benchmarks.workplace import Workplace, check_stored
from tests.support.installation import Installation

__all__ = ["NAMES", "run"]

NAMES = ("memory",)

_MINUTES = 30
_BRIDGE_READINGS = 500_000
_SINK_READINGS = 1_000_000
_SAMPLE_SECONDS = 5.0
#: Largest growth from the second to the last fifth of the run that counts as flat.
_FLAT = 1.05
_FIFTHS = 5
#: Kafka's size limit per partition: half an hour of readings would fill a disk.
_KEEP_BYTES = "500000000"
_SEGMENT_BYTES = "50000000"


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Measure each worker alone at its highest rate, then both for half an hour."""
    del wanted
    place.report("memory: the bridge at full rate")
    full_rate = {"bridge": _bridge_full_rate(place)}
    place.report("memory: the sink at full rate")
    full_rate["sink"] = _sink_full_rate(place)
    minutes = _MINUTES * place.size
    place.report(f"memory: {minutes:.0f} minutes of both")
    samples: dict[str, list[float]] = {"bridge": [], "sink": []}
    with place.installation() as installation:
        _bound_topic(installation)
        workers = {name: installation.worker(name) for name in samples}
        workers["bridge"].start()
        workers["sink"].launch()
        begin = place.points_written()
        probes = send_until(
            place, installation, workers["bridge"], lambda: place.points_written() - begin
        )
        next_sample = time.monotonic()

        def watch() -> None:
            nonlocal next_sample
            if time.monotonic() >= next_sample:
                next_sample += _SAMPLE_SECONDS
                for name, worker in workers.items():
                    samples[name].append(resident_megabytes(worker.pid))

        with place.load(installation, MORE_THAN_ENOUGH) as load:
            meter = place.meter(**{name: worker.pid for name, worker in workers.items()})
            sent, _ = flow(place, load, begin + probes, seconds=minutes * 60, watch=watch)
            usage = meter.read()
        long = {name: peak_megabytes(worker.pid) for name, worker in workers.items()}
        for worker in workers.values():
            worker.stop()
        check_stored(installation, sent + probes)
    growth = {name: _growth(values) for name, values in samples.items()}
    runs = [
        Measured(
            f"{OURS} {name}",
            max(full_rate[name], long[name]),
            {
                "full_rate": full_rate[name],
                "long_run": long[name],
                "minutes": minutes,
                "readings": sent,
                "growth": growth[name],
            },
        )
        for name in samples
    ]
    not_flat = [name for name, factor in growth.items() if factor > _FLAT]
    grew = ", ".join(f"{name} x {factor:.3f}" for name, factor in growth.items())
    remark = Remark(
        f"growth over the run: {grew}; {usage.limit()}",
        f"the memory of {' and '.join(not_flat)} grew" if not_flat else "",
    )
    worst = max(run.value for run in runs)
    return [row_without_peer("memory", "MB peak", worst, runs, remark)]


def _bridge_full_rate(place: Workplace) -> float:
    count = place.amount(_BRIDGE_READINGS)
    measured, _ = measure_bridge(
        place, OURS, lambda installation: installation.worker("bridge"), count
    )
    return measured.details["peak_megabytes"]


def _sink_full_rate(place: Workplace) -> float:
    count = place.amount(_SINK_READINGS)
    measured, _ = measure_sink(place, OURS, lambda installation: installation.worker("sink"), count)
    return measured.details["peak_megabytes"]


def _growth(samples: list[float]) -> float:
    """Compare the memory in the last fifth of the run with that in the second fifth."""
    fifth = max(1, len(samples) // _FIFTHS)
    early = statistics.median(samples[fifth : 2 * fifth] or samples)
    return statistics.median(samples[-fifth:]) / early


def _bound_topic(installation: Installation) -> None:
    """Limit the topic's size, so that a long run does not fill the disk."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in (
            ("retention.bytes", _KEEP_BYTES),
            ("segment.bytes", _SEGMENT_BYTES),
        )
    ]
    topic = installation.profile.topics.raw
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = installation.kafka.admin()
    for change in admin.incremental_alter_configs([resource]).values():
        change.result(30)
