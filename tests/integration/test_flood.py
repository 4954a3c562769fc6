"""One device that floods the broker delays the others by no more than seconds."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from headrace.models.window import rfc3339
from native.servers import LOOPBACK
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation

RATE = 20_000
SECONDS = 20
HONEST = 50
#: Maximum delay of a reading from a normal device, in seconds.
LIMIT = 10.0


class Flood:
    """A device that publishes at QoS 1 without waiting for acknowledgements."""

    def __init__(self, port: int, topic: str, rate: int) -> None:
        self.sent = 0
        self.acknowledged_bytes = 0
        self._rate = rate
        self._stop = threading.Event()
        payload = json.dumps(reading("flood", note="x" * 50)).encode()
        head = len(topic).to_bytes(2, "big") + topic.encode()
        self._head, self._payload = head, payload
        length = len(head) + 2 + len(payload)
        assert 127 < length < 16_384
        self._fixed = bytes([0x32, length & 0x7F | 0x80, length >> 7])
        self._socket = socket.create_connection((LOOPBACK, port))
        client = b"flood"
        body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(client).to_bytes(2, "big") + client
        self._socket.sendall(bytes([0x10, len(body)]) + body)
        assert self._socket.recv(4) == b"\x20\x02\x00\x00"
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._read)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._threads[0].join()
        time.sleep(1)
        self._socket.close()
        self._threads[1].join()

    def _send(self) -> None:
        begun = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - begun) * self._rate) - self.sent
            if due <= 0:
                time.sleep(0.005)
                continue
            packets = bytearray()
            for number in range(self.sent, self.sent + min(due, 1000)):
                packet_id = (number % 65_535 + 1).to_bytes(2, "big")
                packets += self._fixed + self._head + packet_id + self._payload
            self._socket.sendall(packets)
            self.sent += min(due, 1000)

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(65_536)
            except OSError:
                return
            if not data:
                return
            self.acknowledged_bytes += len(data)


@contextmanager
def honest_devices(installation: Installation) -> Iterator[None]:
    """Fifty devices that each publish once a second, with their own `time`."""
    stop = threading.Event()

    def publish() -> None:
        with Publisher(installation.backbone.mqtt_port) as device:
            number = 0
            while not stop.wait(1 / HONEST):
                number += 1
                name = f"honest{number % HONEST}"
                payload = reading(name, fuel=number, time=rfc3339(datetime.now(UTC)))
                device.send(f"{installation.name}/{name}", payload)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def age_in_influxdb(installation: Installation) -> float:
    """Return the age of the normal devices' newest reading in InfluxDB, in seconds."""
    points = installation.points("fuel", timedelta(seconds=60))
    newest = max(moment for device, moment, _ in points if device.startswith("honest"))
    return (datetime.now(UTC) - newest).total_seconds()


@pytest.mark.long
def test_a_flooding_device_delays_others_by_seconds_at_most(installation: Installation) -> None:
    installation.worker("bridge").start()
    installation.worker("sink").start()
    with honest_devices(installation):
        time.sleep(5)
        topic = f"{installation.name}/flood"
        flood = Flood(installation.backbone.mqtt_port, topic, RATE)
        flood.start()
        ages = []
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            time.sleep(2)
            ages.append(age_in_influxdb(installation))
        flood.stop()
    time.sleep(LIMIT)
    delays = sorted(
        record.timestamp_ms / 1000 - int(record.headers["time_ns"]) / 1e9
        for record in installation.records(installation.profile.topics.raw)
        if record.key.startswith(b"honest")
    )
    sys.stdout.write(
        f"flood: {flood.sent} sent, {flood.acknowledged_bytes // 4} acknowledged in {SECONDS} s; "
        f"others to Kafka: median {delays[len(delays) // 2]:.2f} s, max {delays[-1]:.2f} s; "
        f"in InfluxDB: oldest view {max(ages):.2f} s\n"
    )
    assert len(delays) > HONEST * SECONDS * 0.8
    assert delays[-1] < LIMIT
    assert max(ages) < LIMIT
