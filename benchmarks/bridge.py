"""Measures the bridge (MQTT to Kafka), its peers, and the broker alone."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from benchmarks.load.packets import connect, publish, receive_packet
from benchmarks.meter import Usage, peak_megabytes
from benchmarks.peers import BRIDGES
from benchmarks.readings import FIRST_NUMBER, device, payload
from benchmarks.results import OURS, Measured, Remark, Row, row_with_peer, row_without_peer
from benchmarks.workplace import (
    CountError,
    Workplace,
    check_numbers,
    partitions,
    records_in,
    wait_until,
)
from tests.support.installation import Installation
from tests.support.processes import Process

__all__ = ["NAMES", "measure_bridge", "run", "send_until"]

NAMES = ("bridge.cpu", "bridge.rate", "bridge.limit")

_READINGS, _LEAST_READINGS = 200_000, 50_000
_PARTITIONS = "3"
_PUBACK = 0x40
_BROKER_ALONE = "broker alone"
_START_SECONDS = 60.0
_PROBE_SECONDS = 0.3


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Measure the bridge and its peers in turn."""
    count = place.amount(_READINGS, least=_LEAST_READINGS)
    contenders = {OURS: _ours}
    if wanted & {"bridge.cpu", "bridge.rate"}:
        contenders |= {peer.name: peer.process for peer in BRIDGES}
    place.warm_kafka()
    runs: list[tuple[Measured, Usage]] = []
    alone: list[Measured] = []
    for turn in range(place.repeats):
        for by, start in contenders.items():
            place.report(f"bridge, run {turn + 1} of {place.repeats}: {by}, {count:,} readings")
            runs.append(measure_bridge(place, by, start, count))
        if "bridge.limit" in wanted:
            place.report(f"bridge, run {turn + 1} of {place.repeats}: the broker alone")
            alone.append(_broker_alone(place, count))
    limit = next(usage for run, usage in reversed(runs) if run.by == OURS).limit()
    rates = [run for run, _ in runs]
    rows = []
    if "bridge.cpu" in wanted:
        per_cpu = [
            Measured(run.by, run.details["readings"] / run.details["cpu_seconds"], run.details)
            for run in rates
        ]
        rows.append(row_with_peer("bridge.cpu", "readings/CPU s", per_cpu, Remark(limit)))
    if "bridge.rate" in wanted:
        rows.append(row_with_peer("bridge.rate", "readings/s", rates, Remark(limit)))
    if "bridge.limit" in wanted:
        ours = [run for run in rates if run.by == OURS]
        share = statistics.median(run.value for run in ours) / statistics.median(
            run.value for run in alone
        )
        rows.append(
            row_without_peer(
                "bridge.limit", "share of the broker's rate", share, [*ours, *alone], Remark(limit)
            )
        )
    return rows


def _ours(installation: Installation) -> Process:
    return installation.worker("bridge")


def measure_bridge(
    place: Workplace,
    by: str,
    make: Callable[[Installation], Process],
    count: int,
    *,
    devices: int = 1000,
    watched: Callable[[int], AbstractContextManager[object]] = nullcontext,
) -> tuple[Measured, Usage]:
    """Measure how fast a contender moves readings to Kafka at the highest rate.

    The time is from the first reading sent to the last one in Kafka. CPU seconds count
    the contender's whole process in that time.

    Raises
    ------
    CountError
        If Kafka does not have each reading once at the end.
    """
    with place.installation(HEADRACE_KAFKA_PARTITIONS=_PARTITIONS) as installation:
        process = make(installation)
        process.start()
        with place.reader() as reader:
            places = partitions(reader, installation.profile.topics.raw)
            before = send_until(place, installation, process, lambda: records_in(reader, places))
            with (
                place.load(installation, count, devices=devices) as load,
                watched(process.pid),
            ):
                meter = place.meter(bridge=process.pid)
                load.tell(count)
                load.finish()
                done = wait_until(lambda: records_in(reader, places) - before, count, seconds=120)
                usage = meter.read({"generator": load.cpu})
        peak = peak_megabytes(process.pid)
        # A contender that stops cleanly has acknowledged everything it delivered.
        process.stop()
        check_numbers(installation, count)
    seconds = done - load.begun
    details = {
        "readings": count,
        "seconds": seconds,
        "cpu_seconds": usage.cpu["bridge"],
        "broker_took_seconds": load.ended - load.begun,
        "generator_cpu_seconds": load.cpu,
        "peak_megabytes": peak,
    }
    return Measured(by, count / seconds, details), usage


def send_until(
    place: Workplace,
    installation: Installation,
    process: Process,
    arrived: Callable[[], int],
) -> int:
    """Send single readings until one arrives, because a peer does not report its subscription.

    Returns
    -------
    int
        Number of readings that have arrived.
    """
    sock = connect(place.backbone.mqtt_port, f"probe-{installation.name}")
    # The number is below those of the load.
    probe = payload(0, 0).replace(str(FIRST_NUMBER).encode(), b"0")
    deadline = time.monotonic() + _START_SECONDS
    sent = 0
    while not arrived():
        if time.monotonic() > deadline or not process.alive:
            msg = f"no reading arrived\n{process.tail()}"
            raise CountError(msg)
        sent += 1
        sock.sendall(publish(f"{installation.name}/{device(0)}", sent, probe))
        receive_packet(sock, _PUBACK)
        time.sleep(_PROBE_SECONDS)
    sock.close()
    # After this time, the other accepted readings have arrived.
    time.sleep(2 * _PROBE_SECONDS)
    return arrived()


def _broker_alone(place: Workplace, count: int) -> Measured:
    """Measure the broker's rate to a subscriber that only acknowledges."""
    with place.installation() as installation:
        arguments = ["-m", "benchmarks.load.subscriber", "--prefix", installation.name]
        arguments += ["--port", str(place.backbone.mqtt_port), "--count", str(count)]
        with place.program(*arguments) as subscriber, place.load(installation, count) as load:
            load.tell(count)
            load.finish()
            out, _ = subscriber.communicate(timeout=120)
    said = json.loads(out.splitlines()[-1])
    if said["received"] != count:
        msg = f"the broker delivered {said['received']:,} of {count:,}"
        raise CountError(msg)
    seconds = said["ended"] - load.begun
    return Measured(_BROKER_ALONE, count / seconds, {"seconds": seconds})
