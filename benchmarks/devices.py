"""Measures how many devices with keep-alive and Last Will stay connected beside the bridge."""

from __future__ import annotations

import json
import time

from benchmarks.load.packets import connect, exactly, subscribe
from benchmarks.results import OURS, Measured, Remark, Row, row_without_peer
from benchmarks.workplace import CountError, Workplace
from tests.support.installation import Installation
from tests.support.processes import wait_for

__all__ = ["NAMES", "run"]

NAMES = ("devices",)

_DEVICES = 10_000
_CONNECT_SECONDS = 300.0
#: Three keep-alives. The broker drops a client that is silent for 1.5 keep-alives.
_HOLD_SECONDS = 135.0
_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_CONNECTED = "$SYS/broker/clients/connected"
#: Other clients: the bridge. The client that reads the count may not be included.
_OTHERS = 1


def run(place: Workplace, wanted: set[str]) -> list[Row]:
    """Connect a fleet, keep it connected, and count the dropped devices."""
    del wanted
    size = max(100, int(_DEVICES * place.size))
    with place.installation() as installation:
        bridge = installation.worker("bridge")
        bridge.start()
        fleet = installation.worker(
            "simulate", "--generators", str(size), "--interval", "10-20", label="fleet"
        )
        place.report(f"connecting {size:,} devices")
        begun = time.monotonic()
        fleet.launch()
        wait_for(lambda: _online(installation)[0] >= size, _CONNECT_SECONDS, every=2)
        connected_seconds = time.monotonic() - begun
        # The broker updates its count every few seconds.
        wait_for(lambda: _connected(place) >= size + _OTHERS, _ANSWER_SECONDS, every=1)
        place.report(f"keeping them connected for {_HOLD_SECONDS:.0f} s")
        meter = place.meter(bridge=bridge.pid, fleet=fleet.pid)
        deadline = time.monotonic() + _HOLD_SECONDS
        least = size
        while time.monotonic() < deadline:
            least = min(least, _connected(place) - _OTHERS)
            time.sleep(_LOOK_SECONDS)
        usage = meter.read()
        online, dropped = _online(installation)
    if dropped:
        msg = f"{dropped} devices were dropped"
        raise CountError(msg)
    held = min(least, online)
    details = {
        "held_seconds": _HOLD_SECONDS,
        "connect_seconds": connected_seconds,
        "dropped": dropped,
    }
    runs = [Measured(OURS, held, details)]
    return [row_without_peer("devices", "devices connected", held, runs, Remark(usage.limit()))]


def _online(installation: Installation) -> tuple[int, int]:
    """Count the devices that reported online, and how often the broker dropped one.

    A device that is dropped is declared offline by its Last Will.
    """
    topic = installation.profile.topics.status
    online: set[bytes] = set()
    dropped = 0
    for record in installation.records(topic):
        if json.loads(record.value)["status"] == "online":
            online.add(record.key)
        else:
            online.discard(record.key)
            dropped += 1
    return len(online), dropped


def _connected(place: Workplace) -> int:
    """Return the broker's count of connected clients, which it updates every ten seconds."""
    with connect(place.backbone.mqtt_port, "benchmark-counts") as sock:
        sock.settimeout(_ANSWER_SECONDS)
        subscribe(sock, _CONNECTED)
        first, length = exactly(sock, 2)
        body = exactly(sock, length)
    topic = int.from_bytes(body[:2], "big")
    # At QoS 1, a packet id follows.
    begin = 2 + topic + (2 if first & 0x06 else 0)
    return int(body[begin:])
