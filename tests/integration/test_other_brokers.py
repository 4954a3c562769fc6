"""With other brokers than mosquitto, readings are stored once despite kills."""

from __future__ import annotations

import copy
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from headrace.ingest.factory import make_codec
from headrace.ingest.presence import recorded_presence
from headrace.models.presence import PresenceState
from headrace.profile import load_profile
from headrace.settings import load_settings
from headrace.storage.kafka import Record
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription
from native.servers import LOOPBACK
from tests.support.backbone import Backbone
from tests.support.brokers import BROKERS, mochi
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.live_bridge import InstantKafka, running_bridge
from tests.support.processes import Process, wait_for
from tests.support.streams import Stream, count_stream
from tests.support.toxic import Toxic

RATE = 60
#: Settings of each broker from docs/brokers.md.
SETTINGS = {
    # Above mochi's own limit: beyond Receive Maximum it sends messages twice.
    "mochi": {"HEADRACE_MQTT_RECEIVE_MAXIMUM": "65535"},
    "hivemq": {},
}


@dataclass
class OtherBroker:
    """An installation with another broker."""

    name: str
    process: Process
    installation: Installation
    #: Proxy between the bridge and the broker.
    way: Toxic

    @contextmanager
    def reconnecting(self, streams: list[Stream]) -> Iterator[None]:
        """The bridge reconnects. With mochi, which loses messages then, nothing is published."""
        for stream in streams if self.name == "mochi" else ():
            stream.pause()
        yield
        wait_for(lambda: self.installation.healthy(self.installation.bridge_port), 60)
        for stream in streams:
            stream.resume()


@pytest.fixture(params=BROKERS)
def other(
    request: pytest.FixtureRequest, backbone: Backbone, tmp_path: Path
) -> Iterator[OtherBroker]:
    process, port = BROKERS[request.param](tmp_path / request.param)
    process.start()
    # The same Kafka and InfluxDB, and another broker.
    around = copy.copy(backbone)
    around.mqtt_port = port
    way = backbone.toxic("mqtt", port)
    installation = Installation(around, tmp_path / "installation", env=SETTINGS[request.param])
    try:
        installation.provision()
        yield OtherBroker(request.param, process, installation, way)
    finally:
        installation.close()
        process.kill()
        # The proxy uses mosquitto again for the next test.
        backbone.toxic("mqtt")


@pytest.mark.long
def test_killed_processes_behind_another_broker_lose_and_duplicate_nothing(
    other: OtherBroker,
) -> None:
    installation = other.installation
    bridge = installation.worker(
        "bridge", HEADRACE_MQTT_PORT=str(installation.backbone.toxic_mqtt_port)
    )
    bridge.start()
    installation.worker("sink").launch()
    streams = [
        Stream(installation, "timed", qos=1, with_time=True, rate=RATE),
        Stream(installation, "bare", qos=1, with_time=False, rate=RATE),
    ]
    for stream in streams:
        stream.start()
    device = Publisher(installation.backbone.mqtt_port, "dying")
    status = f"{installation.name}/dying/status"
    device.client.will_set(status, "offline", qos=1, retain=True)
    device.__enter__()
    device.send_all([(f"{installation.name}/dying", reading("dying"))])
    device.send(status, "online", retain=True).wait_for_publish(10)
    raw = installation.profile.topics.raw
    wait_for(lambda: len(installation.records(raw)) > RATE)

    # Break the connection and kill the process; the broker queues new messages.
    with other.reconnecting(streams):
        other.way.heal()
        wait_for(lambda: bridge.log.read_text().count("session=resumed") >= 1)
    bridge.kill()
    device.client.loop_stop()
    sock = device.client.socket()
    assert sock is not None
    sock.close()
    before = sum(len(stream.acknowledged) for stream in streams)
    wait_for(lambda: sum(len(stream.acknowledged) for stream in streams) > before + RATE)
    with other.reconnecting(streams):
        bridge.start()

    for stream in streams:
        stream.finish()
    wanted = sum(len(stream.acknowledged) for stream in streams) + 1
    wait_for(lambda: len(installation.records(raw)) >= wanted, 60)
    wait_for(lambda: len(installation.points("fuel")) >= wanted, 60)
    counts = [count for stream in streams for count in count_stream(stream, installation)]
    assert [(count.lost, count.twice) for count in counts] == [(set(), set())] * 4
    assert bridge.log.read_text().count("session=new") == 1
    known = recorded_presence(installation.kafka, installation.profile)
    assert known["dying"].state is PresenceState.OFFLINE


def test_queued_messages_of_mochi_are_stored_once(tmp_path: Path) -> None:
    """The bridge reconnects repeatedly and leaves readings unacknowledged.

    Nothing is published while it connects: mochi itself loses some of that.
    """
    process, port = mochi(tmp_path)
    process.start()
    settings = load_settings(Path(os.devnull))
    profile = load_profile(settings.profile)
    kafka, codec = InstantKafka(), make_codec(settings, profile)
    maximum = int(SETTINGS["mochi"]["HEADRACE_MQTT_RECEIVE_MAXIMUM"])
    connected = partial(running_bridge, port, kafka, profile, codec, receive_maximum=maximum)
    sent = 0

    def publish(count: int) -> None:
        nonlocal sent
        numbers = range(sent, sent + count)
        publisher.send_all(
            [("emergency_generator/g1", reading("g1", fuel=number)) for number in numbers]
        )
        sent += count

    def raw_records() -> list[Record]:
        return [record for record in kafka.records if record.topic == profile.topics.raw]

    try:
        with Publisher(port) as publisher:
            # A new subscription delivers retained messages.
            status = publisher.send("emergency_generator/g1/status", "online", retain=True)
            status.wait_for_publish(10)
            with connected():
                wait_for(lambda: kafka.records)
            for _ in range(2):
                publish(1500)
                with connected() as raised:
                    wait_for(lambda: len(raw_records()) >= sent)
                    # Some of these are in flight when the bridge disconnects.
                    publish(200)
                assert not raised
        with connected() as raised:
            wait_for(lambda: len(raw_records()) >= sent)
            # Duplicates would arrive soon.
            time.sleep(1)
        assert not raised
    finally:
        process.kill()
    stored = Counter(json.loads(record.value)["fuel"] for record in raw_records())
    assert stored == Counter(range(sent))


def test_limits_of_mochi_are_reported(tmp_path: Path) -> None:
    process, port = mochi(tmp_path, "-session-expiry", "60", "-qos", "0")
    process.start()
    session = MqttSession(
        MqttAddress(LOOPBACK, port),
        "bridge-1",
        (Subscription("fleet/+"),),
        keepalive=timedelta(seconds=30),
        session_expiry=timedelta(days=7),
        receive_maximum=100,
        keep_bytes=1000,
    )
    try:
        session.connect()
        said = " ".join(session.shortfalls)
        assert "for 60 s without a connection instead of 604800 s" in said
        assert "QoS 0" in said
        session.leave(1.0)
    finally:
        process.kill()
