"""Streams of numbered readings, and counts of the readings that were stored."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from paho.mqtt.client import MQTTErrorCode

from headrace.models.window import rfc3339
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation

__all__ = ["Count", "Stream", "count_stream"]

_DEVICES = 5


@dataclass
class Count:
    """Result of a stream.

    Parameters
    ----------
    lost
        Numbers that the broker acknowledged and Kafka or InfluxDB lacks.
    twice
        Numbers that Kafka or InfluxDB has more than once.
    """

    acknowledged: int
    lost: set[int]
    twice: set[int]


class Stream:
    """Publishes numbered readings from several devices until it is stopped.

    The number is the value of `fuel`, which both Kafka and InfluxDB store.
    """

    def __init__(
        self, installation: Installation, name: str, *, qos: int, with_time: bool, rate: float
    ) -> None:
        self.name = name
        self.qos = qos
        self.acknowledged: set[int] = set()
        self._installation = installation
        self._with_time = with_time
        self._rate = rate
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._sent: dict[int, int] = {}
        self._early: set[int] = set()
        self._number = 0
        self._lock = threading.Lock()
        self._publisher = Publisher(installation.backbone.mqtt_port, f"{installation.name}-{name}")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._publisher.client.on_publish = self._on_publish
        self._publisher.__enter__()
        self._thread.start()

    def pause(self, seconds: float = 30.0) -> None:
        """Stop sending and wait until the broker has acknowledged everything sent."""
        self._go.clear()
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if not self._sent:
                    return
            assert time.monotonic() < deadline, "the broker acknowledges nothing"
            time.sleep(0.01)

    def resume(self) -> None:
        self._go.set()

    def finish(self) -> None:
        """Stop sending and wait for the last acknowledgements."""
        self._stop.set()
        self._go.set()
        self._thread.join()
        self.pause()
        self._publisher.__exit__(None, None, None)

    def device(self, number: int) -> str:
        return f"{self.name}{number % _DEVICES}"

    def _on_publish(self, client: Any, userdata: Any, mid: int, *_: Any) -> None:
        del client, userdata
        if not self.qos:
            return
        with self._lock:
            number = self._sent.pop(mid, None)
            if number is None:
                # The acknowledgement can arrive before the sender records the number.
                self._early.add(mid)
            else:
                self.acknowledged.add(number)

    def _run(self) -> None:
        begun, sent = time.monotonic(), 0
        while not self._stop.is_set():
            if not self._go.is_set():
                self._go.wait()
                begun, sent = time.monotonic(), 0
            if sent >= (time.monotonic() - begun) * self._rate:
                time.sleep(0.002)
                continue
            self._number += 1
            sent += 1
            payload = reading(self.device(self._number), fuel=self._number)
            if self._with_time:
                payload["time"] = rfc3339(datetime.now(UTC))
            topic = f"{self._installation.name}/{self.device(self._number)}"
            info = self._publisher.send(topic, payload, self.qos)
            with self._lock:
                if not self.qos:
                    # QoS 0 has no acknowledgement, so count the sent readings.
                    if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                        self.acknowledged.add(self._number)
                elif info.mid in self._early:
                    self._early.remove(info.mid)
                    self.acknowledged.add(self._number)
                else:
                    self._sent[info.mid] = self._number


def count_stream(stream: Stream, installation: Installation) -> tuple[Count, Count]:
    """Count the numbers of a stream in Kafka and in InfluxDB."""
    in_kafka: Counter[int] = Counter()
    for record in installation.records(installation.profile.topics.raw):
        content = json.loads(record.value)
        if content["generatorID"].startswith(stream.name):
            in_kafka[int(content["fuel"])] += 1
    in_influx = Counter(
        int(value)
        for device, _, value in installation.points("fuel")
        if device.startswith(stream.name)
    )
    return _count(stream, in_kafka), _count(stream, in_influx)


def _count(stream: Stream, found: Counter[int]) -> Count:
    return Count(
        len(stream.acknowledged),
        stream.acknowledged - set(found),
        {number for number, times in found.items() if times > 1},
    )
