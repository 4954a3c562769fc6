"""A reading from MQTT through Kafka into InfluxDB."""

from __future__ import annotations

from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for


def test_reading_arrives_whole(installation: Installation) -> None:
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
