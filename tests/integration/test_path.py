"""A reading from MQTT through Kafka into InfluxDB."""

from __future__ import annotations

import json

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from native.servers import LOOPBACK
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for


def test_every_field_of_a_reading_is_stored(installation: Installation) -> None:
    bridge, sink = installation.worker("bridge"), installation.worker("sink")
    bridge.start()
    sink.launch()
    with Publisher(installation.backbone.mqtt_port) as device:
        device.send_all([(f"{installation.name}/generator1", reading(fuel=623))])
    points = wait_for(lambda: installation.points("fuel"))
    assert [(device, value) for device, _, value in points] == [("generator1", 623.0)]
    (record,) = installation.records(installation.profile.topics.raw)
    assert record.key == b"generator1"
    assert record.headers["topic"] == f"{installation.name}/generator1".encode()


def test_a_minimal_device_needs_no_login_time_or_qos(installation: Installation) -> None:
    """QoS 0, no `time`, no login, the device id as client id, and no reading of responses."""
    installation.worker("bridge").start()
    installation.worker("sink").launch()
    device = Client(CallbackAPIVersion.VERSION2, client_id="generator1")
    device.connect(LOOPBACK, installation.backbone.mqtt_port, keepalive=45)
    payload = (
        b'{"generatorID": "generator1", "lat": 40.64621, "lon": -73.97069, "temperature": 293, '
        b'"power": 2405, "load": 82, "fuel": -71}'
    )
    device.publish(f"{installation.name}/generator1", payload)
    points = wait_for(lambda: installation.points("fuel"))
    assert [(device, value) for device, _, value in points] == [("generator1", -71.0)]
    (record,) = installation.records(installation.profile.topics.raw)
    assert record.value == payload
    assert abs(record.timestamp_ms - points[0][1].timestamp() * 1000) < 5000
    device.disconnect()


def test_numbers_keep_their_value_from_json_to_influxdb(installation: Installation) -> None:
    """Numbers go to InfluxDB as text, unchanged, and InfluxDB parses them as Python does."""
    spelled = ["5", "-0", "5.50", "1e3", "1E+3", "-1.5e-3", "0.1", "1e308", "5e-324", "1e-400"]
    spelled += ["9007199254740993", "0.30000000000000004", "1" + "0" * 300, "0." + "1" * 300]
    installation.worker("bridge").start()
    installation.worker("sink").launch()
    plain = json.dumps(reading("generator1", fuel=0))
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as device:
        device.send_all(
            [(topic, plain.replace('"fuel": 0', f'"fuel": {text}').encode()) for text in spelled]
        )
    points = wait_for(lambda: p if len(p := installation.points("fuel")) == len(spelled) else [])
    stored = [value for _, _, value in sorted(points, key=lambda point: point[1])]
    assert stored == [float(text) for text in spelled]
