"""A simulated fleet in one thread. Each device has its own MQTT session."""

from __future__ import annotations

import heapq
import json
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import structlog
from paho.mqtt.client import Client, ConnectFlags, MQTTErrorCode, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from headrace.errors import HeadraceError
from headrace.models.window import rfc3339
from headrace.profile import MqttTopics
from headrace.simulation.generator import Generator
from headrace.storage.mqtt import MqttAddress
from headrace.storage.mqtt_client import MqttClient, unreachable

__all__ = ["Device", "Fleet", "FleetPlan"]

_log = structlog.get_logger(__name__)

_KEEPALIVE_SECONDS = 45
#: Maximum number of readings that an offline device keeps.
_BUFFERED_READINGS = 10_000
_RECONNECT_SECONDS = (2.0, 10.0)
_MISC_SECONDS = 5.0
_REPORT_SECONDS = 60.0


@dataclass(frozen=True)
class FleetPlan:
    """Size and behaviour of a fleet.

    Parameters
    ----------
    size
        Number of generators.
    interval
        Shortest and longest time between two readings, in seconds. Each generator has its
        own interval.
    seed
        The same seed gives the same readings.
    offline_chance
        Probability, at each reading, that a generator loses its connection.
    offline_seconds
        Shortest and longest time offline, in seconds. The generator sends the readings of
        this time later.
    qos
        Quality of service of the readings.
    """

    size: int
    interval: tuple[float, float]
    seed: int
    offline_chance: float = 0.0
    offline_seconds: tuple[float, float] = (30.0, 180.0)
    qos: int = 1


class Device:
    """One generator and its session.

    Parameters
    ----------
    number
        Number of the device, from 1.
    plan
        Behaviour of the fleet.
    topics
        Topics to publish to.
    address
        The broker. If it requires logins, a device's login is its id.
    """

    def __init__(
        self,
        number: int,
        plan: FleetPlan,
        topics: MqttTopics,
        address: MqttAddress,
    ) -> None:
        name = f"generator{number}"
        self.random = Random(f"{plan.seed}/{number}")  # noqa: S311 - a simulation
        self.generator = Generator(name, self.random)
        self.index = number - 1
        self.period = self.random.uniform(*plan.interval)
        self.offline_until = 0.0
        self.connected = False
        self._plan = plan
        self._address = address
        self._topic = topics.readings_of(name)
        self._status_topic = topics.status_of(name)
        self._buffer: deque[dict[str, Any]] = deque(maxlen=_BUFFERED_READINGS)
        self.client = MqttClient(
            CallbackAPIVersion.VERSION2,
            client_id=f"headrace-{name}",
            # A persistent session, so that the broker does not store resent messages twice.
            clean_session=False,
            protocol=MQTTv311,
        )
        address.apply_to(self.client)
        self.client.will_set(self._status_topic, "offline", qos=1, retain=True)
        self.client.on_connect = self._on_connect

    def connect(self) -> None:
        """Open the connection; the broker answers later.

        Raises
        ------
        AccessDeniedError
            If a certificate is not accepted.
        TransientError
            If the broker can't be reached.
        """
        self.client.tls_alert = None
        try:
            self.client.connect(self._address.host, self._address.port, _KEEPALIVE_SECONDS)
        except OSError as exc:
            raise unreachable(self._address, exc) from exc
        if self.client.socket() is None:
            # The broker closed the connection before it read the CONNECT.
            closed = unreachable(self._address, ConnectionResetError("it closes the connection"))
            raise self.refusal() or closed

    def refusal(self) -> HeadraceError | None:
        """Why the broker ended the TLS connection, if it said so."""
        alert = self.client.tls_alert
        return None if alert is None else unreachable(self._address, alert)

    def cut(self) -> None:
        """Drop the connection without a DISCONNECT, so that the broker sends the Last Will."""
        self.connected = False
        sock = self.client.socket()
        if sock is not None:
            sock.close()

    def leave(self) -> None:
        """Publish `offline` and disconnect."""
        self.connected = False
        self.client.publish(self._status_topic, "offline", qos=1, retain=True)
        self.client.disconnect()

    def measure(self, now: float) -> int:
        """Take a reading; send or keep it. Returns the number of readings sent."""
        reading = self.generator.read()
        if not self.connected or now < self.offline_until:
            # The reading is sent later, so it needs its own time.
            self._buffer.append({**reading, "time": rfc3339(datetime.now(UTC))})
            return 0
        self._send(reading)
        return 1

    def _send(self, reading: dict[str, Any]) -> None:
        self.client.publish(self._topic, json.dumps(reading), qos=self._plan.qos)

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del userdata, flags, properties
        if reason.is_failure:
            _log.warning(
                "the broker refuses a device", device=self.generator.device, reason=str(reason)
            )
            return
        self.connected = True
        client.publish(self._status_topic, "online", qos=1, retain=True)
        while self._buffer:
            self._send(self._buffer.popleft())


class Fleet:
    """Runs a fleet of devices in one thread.

    Parameters
    ----------
    plan
        Behaviour of the fleet.
    topics
        Topics to publish to.
    addresses
        The broker: one address for all devices, or one each if the broker requires logins.
    """

    def __init__(
        self, plan: FleetPlan, topics: MqttTopics, addresses: Sequence[MqttAddress]
    ) -> None:
        self._plan = plan
        self._devices = [
            Device(number, plan, topics, addresses[(number - 1) % len(addresses)])
            for number in range(1, plan.size + 1)
        ]
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[Device, socket.socket] = {}
        self._due: list[tuple[float, int, str]] = []
        self._sent = 0
        self._next_complaint = 0.0

    def run(self, stop: threading.Event) -> None:
        """Measure and send until `stop` is set."""
        now = time.monotonic()
        for number, device in enumerate(self._devices):
            heapq.heappush(self._due, (now, number, "connect"))
            first = now + device.random.uniform(0, device.period)
            heapq.heappush(self._due, (first, number, "measure"))
        next_misc, next_report = now + _MISC_SECONDS, now + _REPORT_SECONDS
        while not stop.is_set():
            now = time.monotonic()
            self._serve(min(0.5, max(0.0, self._due[0][0] - now)) if self._due else 0.5)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, number, what = heapq.heappop(self._due)
                self._act(self._devices[number], what, now)
            if now >= next_misc:
                next_misc = now + _MISC_SECONDS
                self._keep_alive()
            if now >= next_report:
                next_report = now + _REPORT_SECONDS
                online = sum(device.connected for device in self._devices)
                _log.info("fleet status", online=online, of=len(self._devices), sent=self._sent)
        for device in self._devices:
            with suppress(OSError, ValueError):
                device.leave()
        self._serve(0.5)

    def _act(self, device: Device, what: str, now: float) -> None:
        if what == "connect":
            if now < device.offline_until or not self._connect(device):
                again = now + device.random.uniform(*_RECONNECT_SECONDS)
                heapq.heappush(
                    self._due, (max(again, device.offline_until), device.index, "connect")
                )
            return
        self._sent += device.measure(now)
        heapq.heappush(self._due, (now + device.period, device.index, "measure"))
        if device.connected and device.random.random() < self._plan.offline_chance:
            device.offline_until = now + device.random.uniform(*self._plan.offline_seconds)
            self._lost(device)

    def _connect(self, device: Device) -> bool:
        try:
            device.connect()
        except HeadraceError as exc:
            self._unreachable(exc)
            return False
        sock = cast("socket.socket", device.client.socket())
        self._sockets[device] = sock
        self._selector.register(sock, selectors.EVENT_READ, device)
        return True

    def _unreachable(self, exc: HeadraceError) -> None:
        """Report the error for the first device, and once a minute while it lasts."""
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + _REPORT_SECONDS
            _log.warning("simulated devices can't connect", problem=str(exc))

    def _lost(self, device: Device) -> None:
        """Close a connection and schedule the next attempt."""
        sock = self._sockets.pop(device, None)
        if sock is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(sock)
        device.cut()
        wait = time.monotonic() + device.random.uniform(*_RECONNECT_SECONDS)
        heapq.heappush(self._due, (max(wait, device.offline_until), device.index, "connect"))

    def _serve(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            device: Device = key.data
            if device.client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                if (refusal := device.refusal()) is not None:
                    self._unreachable(refusal)
                self._lost(device)
            elif device.client.want_write():
                device.client.loop_write()

    def _keep_alive(self) -> None:
        for device in list(self._sockets):
            if device.client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._lost(device)
            elif device.client.want_write():
                device.client.loop_write()
