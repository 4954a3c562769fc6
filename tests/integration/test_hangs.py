"""Servers that hang, respond slowly or break connections: no loss, bounded memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.storage.kafka_log import held_records
from native.servers import LOOPBACK
from tests.support.backbone import Backbone
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import Process, wait_for
from tests.support.streams import Stream, count_stream

#: Memory that a worker may use, whatever the servers do.
MEMORY_LIMIT_MIB = 150


def resident_mib(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) / 1024


def through_proxy(backbone: Backbone) -> dict[str, str]:
    return {
        "HEADRACE_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{backbone.toxic_kafka_port}",
        "HEADRACE_INFLUX_PORT": str(backbone.toxic_influx_port),
    }


def nothing_lost(installation: Installation, *streams: Stream, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    counts = [count for stream in streams for count in count_stream(stream, installation)]
    while any(count.lost for count in counts) and time.monotonic() < deadline:
        time.sleep(0.5)
        counts = [count for stream in streams for count in count_stream(stream, installation)]
    assert not any(count.lost or count.twice for count in counts), counts


def test_a_hanging_kafka_pauses_the_bridge_and_loses_nothing(
    installation: Installation,
) -> None:
    backbone = installation.backbone
    toxic = backbone.toxic("kafka")
    # Small enough to fill up within seconds.
    bridge = installation.worker(
        "bridge", **through_proxy(backbone), HEADRACE_BRIDGE_BUFFER_BYTES=str(1 << 20)
    )
    bridge.start()
    installation.worker("sink").launch()
    stream = Stream(installation, "timed", qos=1, with_time=True, rate=400)
    stream.start()
    time.sleep(2)
    toxic.hang()
    # The queue fills up, and the bridge disconnects from the broker.
    wait_for(lambda: "leaving the broker" in bridge.log.read_text(), 60)
    report = installation.health(installation.bridge_port)
    assert not report["healthy"]
    assert "confirms nothing" in report["conditions"]["kafka"]["state"]
    held = installation.metric(installation.bridge_port, "headrace_bridge_held_bytes")
    assert held < 3 << 20
    toxic.heal()
    wait_for(lambda: installation.healthy(installation.bridge_port), 60)
    stream.finish()
    nothing_lost(installation, stream)
    assert resident_mib(bridge) < MEMORY_LIMIT_MIB
    assert bridge.stop() == 0


def test_a_hanging_influxdb_pauses_the_sink_without_a_rebalance(
    installation: Installation,
) -> None:
    backbone = installation.backbone
    toxic = backbone.toxic("influxdb")
    installation.worker("bridge").start()
    sink = installation.worker("sink", **through_proxy(backbone))
    sink.start()
    stream = Stream(installation, "plain", qos=1, with_time=False, rate=400)
    stream.start()
    wait_for(lambda: installation.metric(installation.sink_port, "headrace_sink_written") > 0)
    toxic.hang()
    wait_for(lambda: installation.metric(installation.sink_port, "headrace_sink_paused") == 1)
    wait_for(lambda: not installation.healthy(installation.sink_port), 30)
    state = installation.health(installation.sink_port)["conditions"]["influxdb"]["state"]
    assert "InfluxDB" in state
    toxic.heal()
    wait_for(lambda: installation.healthy(installation.sink_port), 60)
    stream.finish()
    nothing_lost(installation, stream)
    # The sink kept its partitions all the time.
    assert sink.log.read_text().count("partitions assigned") == 1
    assert "partitions lost" not in sink.log.read_text()
    assert resident_mib(sink) < MEMORY_LIMIT_MIB
    assert sink.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("server", ["kafka", "influxdb"])
@pytest.mark.parametrize("how", ["slow", "break_off"])
def test_slow_servers_and_broken_connections_lose_nothing(
    installation: Installation, server: str, how: str
) -> None:
    backbone = installation.backbone
    backbone.toxic("kafka")
    backbone.toxic("influxdb")
    toxic = backbone.toxic(server)
    bridge = installation.worker("bridge", **through_proxy(backbone))
    sink = installation.worker("sink", **through_proxy(backbone))
    bridge.start()
    sink.start()
    stream = Stream(installation, "timed", qos=1, with_time=True, rate=300)
    stream.start()
    time.sleep(2)
    for _ in range(3):
        if how == "slow":
            toxic.slow(1500, 30)
        else:
            toxic.break_off(700)
        time.sleep(10)
        toxic.heal()
        time.sleep(3)
    stream.finish()
    nothing_lost(installation, stream, seconds=180)
    assert resident_mib(bridge) < MEMORY_LIMIT_MIB
    assert resident_mib(sink) < MEMORY_LIMIT_MIB


@pytest.mark.long
def test_the_bridge_reconnects_to_a_broker_that_hung(
    install: Callable[..., Installation], backbone: Backbone
) -> None:
    toxic = backbone.toxic("mqtt")
    installation = install(
        HEADRACE_MQTT_PORT=str(backbone.toxic_mqtt_port), HEADRACE_MQTT_KEEPALIVE="10s"
    )
    installation.worker("bridge").start()
    installation.worker("sink").launch()
    stream = Stream(installation, "timed", qos=1, with_time=True, rate=100)
    stream.start()
    time.sleep(2)
    toxic.hang()
    wait_for(lambda: not installation.healthy(installation.bridge_port), 60)
    toxic.heal()
    wait_for(lambda: installation.healthy(installation.bridge_port), 60)
    stream.finish()
    nothing_lost(installation, stream)


def deliver_backlog(installation: Installation, readings: int) -> Process:
    """Queue a backlog in the broker, then start the bridge, which receives it all at once."""
    bridge = installation.worker("bridge")
    bridge.start()
    assert bridge.stop() == 0
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as device:
        for begin in range(0, readings, 10_000):
            batch = [(topic, reading(fuel=begin + n, note="x" * 100)) for n in range(10_000)]
            device.send_all(batch, seconds=120)
    # With a slow Kafka, readings arrive faster than the bridge can forward them.
    toxic = installation.backbone.toxic("kafka")
    toxic.slow(50, 3000)
    bridge.launch()
    topic = installation.profile.topics.raw

    delivered = "headrace_bridge_delivered"
    wait_for(lambda: installation.metric(installation.bridge_port, delivered) > readings * 0.2, 300)
    toxic.heal()
    wait_for(lambda: installation.metric(installation.bridge_port, delivered) >= readings, 300)
    assert held_records(installation.kafka, topic) == readings
    return bridge


def test_a_large_backlog_does_not_exceed_the_memory_limit(
    install: Callable[..., Installation], backbone: Backbone
) -> None:
    backbone.toxic("kafka")
    installation = install(HEADRACE_KAFKA_BOOTSTRAP=f"{LOOPBACK}:{backbone.toxic_kafka_port}")
    bridge = deliver_backlog(installation, 50_000)
    assert resident_mib(bridge) < MEMORY_LIMIT_MIB


@pytest.mark.long
def test_a_backlog_of_a_million_readings_does_not_exceed_the_memory_limit(
    install: Callable[..., Installation], backbone: Backbone
) -> None:
    backbone.toxic("kafka")
    installation = install(HEADRACE_KAFKA_BOOTSTRAP=f"{LOOPBACK}:{backbone.toxic_kafka_port}")
    bridge = deliver_backlog(installation, 1_000_000)
    assert resident_mib(bridge) < MEMORY_LIMIT_MIB
