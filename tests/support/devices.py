"""Devices for the tests. They publish readings and wait for acknowledgements."""

from __future__ import annotations

import json
import threading
import time
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessageInfo, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from native.servers import LOOPBACK

__all__ = ["Publisher", "reading"]


def reading(device: str = "generator1", **changes: Any) -> dict[str, Any]:
    """Return a good reading with changes; a value of `...` leaves the field out."""
    content = {
        "generatorID": device,
        "lat": 40.7,
        "lon": -74.1,
        "temperature": 190,
        "power": 800,
        "load": 40,
        "fuel": 700,
        **changes,
    }
    return {name: value for name, value in content.items() if value is not ...}


class Publisher:
    """One MQTT session that publishes and waits for acknowledgements."""

    def __init__(self, port: int, client_id: str = "", **options: Any) -> None:
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            # In MQTT 5, this is part of each connection instead.
            clean_session=None if options.get("protocol") == MQTTv5 else not client_id,
            **options,
        )
        self.client.max_inflight_messages_set(1000)
        self.client.max_queued_messages_set(0)
        self._port = port

    def __enter__(self) -> Self:
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect(LOOPBACK, self._port)
        self.client.loop_start()
        assert connected.wait(10), "the broker does not answer"
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(
        self, topic: str, payload: Any, qos: int = 1, *, retain: bool = False
    ) -> MQTTMessageInfo:
        """Publish a message; a dictionary is sent as JSON."""
        data = json.dumps(payload) if isinstance(payload, dict) else payload
        return self.client.publish(topic, data, qos=qos, retain=retain)

    def send_all(
        self, messages: list[tuple[str, Any]], qos: int = 1, seconds: float = 60.0
    ) -> None:
        """Publish messages and wait until the broker has acknowledged them all."""
        sent = [self.send(topic, payload, qos) for topic, payload in messages]
        deadline = time.monotonic() + seconds
        for info in sent:
            info.wait_for_publish(max(0.1, deadline - time.monotonic()))
            assert info.is_published(), "the broker did not acknowledge in time"
