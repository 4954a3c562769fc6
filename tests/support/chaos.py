"""Kills processes in random order while numbered readings arrive."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from tests.support.installation import Installation
from tests.support.processes import Process, wait_for
from tests.support.streams import Stream, count_stream

__all__ = ["run_chaos"]


def run_chaos(installation: Installation, *, seconds: float, seed: int) -> list[Stream]:
    """Kill and restart bridge, sink, Kafka, InfluxDB and mosquitto; then wait for all readings.

    Mosquitto stops normally, and only when the devices have all their acknowledgements: a
    device without an acknowledgement would rightly send its reading again.
    """
    backbone = installation.backbone
    chance = random.Random(seed)  # noqa: S311
    _say(f"chaos for {seconds:.0f} s, seed {seed}")
    bridge, sink = installation.worker("bridge"), installation.worker("sink")
    bridge.start()
    sink.launch()
    streams = [
        Stream(installation, "timed", qos=1, with_time=True, rate=150),
        Stream(installation, "plain", qos=1, with_time=False, rate=150),
        Stream(installation, "zero", qos=0, with_time=False, rate=50),
    ]
    for stream in streams:
        stream.start()

    def kill(process: Process) -> Callable[[], None]:
        def act() -> None:
            process.kill()
            time.sleep(chance.uniform(0, 2))
            process.launch()

        return act

    def restart_mosquitto() -> None:
        for stream in streams:
            stream.pause()
        backbone.mosquitto.stop()
        time.sleep(chance.uniform(0, 1))
        backbone.mosquitto.start()
        for stream in streams:
            stream.resume()

    actions = {
        "bridge": kill(bridge),
        "sink": kill(sink),
        "kafka": kill(backbone.kafka),
        "influxdb": kill(backbone.influxdb),
        "mosquitto": restart_mosquitto,
    }
    begun = time.monotonic()
    order: list[str] = []
    while time.monotonic() - begun < seconds:
        time.sleep(chance.uniform(0.5, 3.0))
        # Each process is killed once before any is killed again.
        order = order or chance.sample(sorted(actions), len(actions))
        name = order.pop()
        _say(f"{time.monotonic() - begun:6.1f} s {name}")
        actions[name]()
    for stream in streams:
        stream.finish()
    for process in (backbone.kafka, backbone.influxdb, backbone.mosquitto, bridge, sink):
        assert process.alive, process.tail()
    wait_for(lambda: installation.healthy(installation.bridge_port), 60)
    wait_for(lambda: installation.healthy(installation.sink_port), 60)
    _settle(installation, streams)
    return streams


def _settle(installation: Installation, streams: list[Stream], seconds: float = 90) -> None:
    """Wait until no reading is missing, or until the time is over; the caller counts."""
    deadline = time.monotonic() + seconds
    reliable = [stream for stream in streams if stream.qos == 1]
    while time.monotonic() < deadline:
        counts = [count for stream in reliable for count in count_stream(stream, installation)]
        if not any(count.lost for count in counts):
            return
        time.sleep(1)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
