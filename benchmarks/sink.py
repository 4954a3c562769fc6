"""Measures the sink (Kafka to InfluxDB), Telegraf, and InfluxDB alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta

import urllib3

from benchmarks.filling import fill_kafka, prepared_lines
from benchmarks.meter import Usage, peak_megabytes
from benchmarks.peers import SINK
from benchmarks.results import OURS, Measured, Remark, Row, row_with_peer, row_without_peer
from benchmarks.workplace import CountError, Workplace, check_stored, partitions, wait_until
from native.servers import LOOPBACK
from tests.support.installation import Installation
from tests.support.processes import Process, wait_for

__all__ = ["NAMES", "measure_sink", "run"]

NAMES = ("sink.rate", "sink.limit")

_READINGS = 1_000_000
_CONNECTIONS = (2, 3, 4)
_BATCH = 5000
_INFLUX_ALONE = "InfluxDB alone"
_NO_CONTENT = 204


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Measure the sink, Telegraf and InfluxDB alone in turn."""
    count = place.amount(_READINGS)
    contenders = {OURS: _ours}
    if "sink.rate" in wanted:
        contenders[SINK.name] = SINK.process
    runs: list[tuple[Measured, Usage]] = []
    alone: list[Measured] = []
    batches = _batches(place, count) if "sink.limit" in wanted else []
    for turn in range(place.repeats):
        for by, make in contenders.items():
            place.report(f"sink, run {turn + 1} of {place.repeats}: {by}, {count:,} readings")
            runs.append(measure_sink(place, by, make, count))
        if "sink.limit" in wanted:
            for connections in _CONNECTIONS:
                place.report(
                    f"sink, run {turn + 1} of {place.repeats}: InfluxDB alone, "
                    f"{connections} connections"
                )
                alone.append(_influx_alone(place, batches, count, connections))
    limit = next(usage for run, usage in reversed(runs) if run.by == OURS).limit()
    rates = [run for run, _ in runs]
    rows = []
    if "sink.rate" in wanted:
        rows.append(row_with_peer("sink.rate", "readings/s", rates, Remark(limit)))
    if "sink.limit" in wanted:
        ours = [run for run in rates if run.by == OURS]
        best = max(
            statistics.median(
                run.value for run in alone if run.details["connections"] == connections
            )
            for connections in _CONNECTIONS
        )
        share = statistics.median(run.value for run in ours) / best
        rows.append(
            row_without_peer(
                "sink.limit",
                "share of InfluxDB's rate",
                share,
                [*ours, *alone],
                Remark(limit, if_missed=_shared_cpu(ours)),
            )
        )
    return rows


def _shared_cpu(runs: Sequence[Measured]) -> str:
    """Describe the CPU per reading that the sink and InfluxDB use."""
    influx, sink = (
        statistics.median(run.details[key] / run.details["readings"] for run in runs) * 1e6
        for key in ("influxdb_cpu_seconds", "cpu_seconds")
    )
    return f"the sink uses {sink:.1f} µs of CPU per reading, InfluxDB {influx:.1f} µs"


def _ours(installation: Installation) -> Process:
    return installation.worker("sink")


def measure_sink(
    place: Workplace,
    by: str,
    make: Callable[[Installation], Process],
    count: int,
    *,
    devices: int = 1000,
    watched: Callable[[int], AbstractContextManager[object]] = nullcontext,
) -> tuple[Measured, Usage]:
    """Measure how fast a contender moves readings from a filled Kafka to InfluxDB.

    The time starts with the first points in InfluxDB, so start-up does not count. For the
    sink it ends when the last offset is committed. Telegraf commits once a second, so for
    it the time ends when InfluxDB has the last point.

    Raises
    ------
    CountError
        If InfluxDB does not have each reading once, or if there is a dead letter.
    """
    with place.installation() as installation:
        profile = installation.profile
        fill_kafka(installation, count, _one_hour_ago(), devices=devices)
        before = place.points_written()
        process = make(installation)
        process.launch()
        first = wait_for(lambda: place.points_written() - before, 60, every=0.005)
        if first >= count:
            msg = f"{count:,} readings are too few for a measurement"
            raise CountError(msg)
        meter = place.meter(sink=process.pid)
        begun = time.monotonic()
        with watched(process.pid):
            done = wait_until(lambda: place.points_written() - before, count, 300)
            if by == OURS:
                group = installation.profile.sink_group
                with place.reader(group) as reader:
                    places = partitions(reader, profile.topics.raw)
                    done = wait_until(
                        lambda: sum(max(0, item.offset) for item in reader.committed(places)),
                        count,
                        60,
                    )
        usage = meter.read()
        peak = peak_megabytes(process.pid)
        process.stop()
        check_stored(installation, count)
    seconds = done - begun
    details = {
        "readings": count - first,
        "seconds": seconds,
        "cpu_seconds": usage.cpu["sink"],
        "influxdb_cpu_seconds": usage.cpu["influxdb"],
        "peak_megabytes": peak,
    }
    return Measured(by, (count - first) / seconds, details), usage


def _batches(place: Workplace, count: int) -> list[bytes]:
    """Prepare lines; each run writes them to its own bucket."""
    start = _one_hour_ago()
    with place.installation() as installation:
        return list(
            prepared_lines(
                installation,
                start,
                start + count // 1000 * timedelta(milliseconds=1),
                devices=1000,
                every=timedelta(milliseconds=1),
                batch=_BATCH,
            )
        )


def _influx_alone(
    place: Workplace, batches: Sequence[bytes], count: int, connections: int
) -> Measured:
    """Measure how fast InfluxDB accepts prepared lines."""
    with place.installation() as installation:
        url = (
            f"http://{LOOPBACK}:{place.backbone.influx_port}/api/v2/write?precision=ns"
            f"&org={installation.settings.influx_org}&bucket={installation.profile.buckets.raw}"
        )
        headers = {"Authorization": f"Token {place.backbone.influx_token}"}
        http = urllib3.PoolManager(maxsize=connections)

        def write(data: bytes) -> None:
            response = http.request("POST", url, body=data, headers=headers, retries=False)
            if response.status != _NO_CONTENT:
                msg = f"InfluxDB refuses: {response.data!r}"
                raise CountError(msg)

        write(batches[0])
        begun = time.monotonic()
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(write, batches))
        seconds = time.monotonic() - begun
    details = {"connections": connections, "seconds": seconds}
    return Measured(_INFLUX_ALONE, count / seconds, details)


def _one_hour_ago() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
