"""Measures the whole path from device to InfluxDB, with both workers on one machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from benchmarks.bridge import send_until
from benchmarks.meter import Usage
from benchmarks.peers import BRIDGES, SINK
from benchmarks.results import OURS, Measured, Remark, Row, row_with_peer
from benchmarks.workplace import CountError, Load, Workplace, check_stored
from tests.support.installation import Installation
from tests.support.processes import Process

__all__ = ["MORE_THAN_ENOUGH", "NAMES", "flow", "run"]

NAMES = ("path.rate",)

_READINGS = 400_000
#: Maximum readings between device and InfluxDB, about one or two seconds of load. Up to this
#: limit, the lag does not grow.
_UNDER_WAY = 40_000
_TELL_SECONDS = 0.1
_TELEGRAFS = "two Telegrafs"
_SILENCE_SECONDS = 60.0
#: Readings of a load with a time limit.
MORE_THAN_ENOUGH = 1_000_000_000


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Measure both workers together, and two Telegrafs, in turn."""
    del wanted
    place.warm_kafka()
    count = place.amount(_READINGS)
    passing_through = next(peer for peer in BRIDGES if peer.name == "telegraf-value")

    def ours(installation: Installation) -> tuple[Process, Process]:
        return installation.worker("bridge"), installation.worker("sink")

    def telegrafs(installation: Installation) -> tuple[Process, Process]:
        return passing_through.process(installation), SINK.process(installation)

    runs: list[Measured] = []
    limit = ""
    for turn in range(place.repeats):
        for by, make in ((OURS, ours), (_TELEGRAFS, telegrafs)):
            place.report(f"path, run {turn + 1} of {place.repeats}: {by}, {count:,} readings")
            measured, usage = _measure(place, by, make, count)
            runs.append(measured)
            if by == OURS:
                limit = usage.limit()
    return [row_with_peer("path.rate", "readings/s", runs, Remark(limit))]


def _measure(
    place: Workplace,
    by: str,
    make: Callable[[Installation], tuple[Process, Process]],
    count: int,
) -> tuple[Measured, Usage]:
    """Send readings at the rate at which they reach InfluxDB, with a limit on those under way.

    One run thus finds the highest rate at which the lag does not grow.
    """
    with place.installation() as installation:
        bridge, sink = make(installation)
        bridge.start()
        sink.launch()
        begin = place.points_written()
        probes = send_until(place, installation, bridge, lambda: place.points_written() - begin)
        before = begin + probes
        with place.load(installation, count) as load:
            meter = place.meter(bridge=bridge.pid, sink=sink.pid)
            _, done = flow(place, load, before, count=count)
            load.finish()
            usage = meter.read({"generator": load.cpu})
        for process in (bridge, sink):
            process.stop()
        check_stored(installation, count + probes)
    seconds = done - load.begun
    details = {
        "readings": count,
        "seconds": seconds,
        "bridge_cpu_seconds": usage.cpu["bridge"],
        "sink_cpu_seconds": usage.cpu["sink"],
        "generator_cpu_seconds": load.cpu,
    }
    return Measured(by, count / seconds, details), usage


def flow(
    place: Workplace,
    load: Load,
    before: int,
    *,
    count: int = MORE_THAN_ENOUGH,
    seconds: float = math.inf,
    watch: Callable[[], None] = lambda: None,
) -> tuple[int, float]:
    """Keep a load at the rate at which readings reach InfluxDB; wait for the last one.

    Parameters
    ----------
    place
        The servers.
    load
        The load generator, not started yet.
    before
        Points written to InfluxDB before.
    count, seconds
        End after this number of readings, or after this time.
    watch
        Called every few milliseconds.

    Returns
    -------
    int, float
        Readings sent, and the time of the last one in InfluxDB, on the monotonic clock.

    Raises
    ------
    CountError
        If no reading arrives although some are under way.
    """
    told = written = 0
    heard = begun = time.monotonic()
    while True:
        if told < count and time.monotonic() - begun < seconds:
            told = max(told, min(count, written + _UNDER_WAY))
            load.tell(told)
        elif written >= told:
            return told, heard
        time.sleep(_TELL_SECONDS)
        watch()
        now = place.points_written() - before
        if now > written:
            written, heard = now, time.monotonic()
        elif time.monotonic() - heard > _SILENCE_SECONDS:
            msg = f"{written:,} of {told:,} readings reached InfluxDB"
            raise CountError(msg)
