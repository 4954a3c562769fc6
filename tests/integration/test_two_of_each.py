"""Two sinks or two bridges work together, also if one of them is killed."""

from __future__ import annotations

import json
import time

import pytest

from headrace.stages.ingest_progress import committed_offsets, end_of_topic, sink_lag
from headrace.storage.kafka_log import held_records
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import Process, free_port, wait_for
from tests.support.streams import Stream, count_stream


def second(installation: Installation, name: str, **env: str) -> Process:
    port = str(free_port())
    ports = {"HEADRACE_BRIDGE_METRICS_PORT": port, "HEADRACE_SINK_METRICS_PORT": port}
    return installation.worker(name, label=f"second-{name}", **ports, **env)


def lag(installation: Installation) -> int:
    profile = installation.profile
    return sink_lag(installation.kafka, profile.topics.raw, profile.sink_group)


def assigned(process: Process) -> bool:
    return "partitions assigned" in process.log.read_text()


def test_a_killed_sink_resumes_its_own_partitions(installation: Installation) -> None:
    """Sinks are static members, so a restarted sink gets its own partitions back."""
    installation.worker("bridge").start()
    first = installation.worker("sink", HEADRACE_SINK_ID="sink-a")
    other = second(installation, "sink", HEADRACE_SINK_ID="sink-b")
    first.launch()
    other.launch()
    stream = Stream(installation, "timed", qos=1, with_time=True, rate=500)
    stream.start()
    wait_for(lambda: assigned(first) and assigned(other))
    for _ in range(3):
        time.sleep(1.5)
        other.kill()
        time.sleep(0.5)
        other.launch()
    stream.finish()
    wait_for(lambda: lag(installation) == 0, 60)
    counts = count_stream(stream, installation)
    assert not any(count.lost or count.twice for count in counts), counts


def test_a_sink_takes_over_the_partitions_of_one_that_leaves(installation: Installation) -> None:
    """If partitions are revoked during a batch, the batch is finished and nothing is skipped."""
    installation.worker("bridge").start()
    first = installation.worker("sink")
    first.launch()
    stream = Stream(installation, "plain", qos=1, with_time=False, rate=500)
    stream.start()
    wait_for(lambda: assigned(first))
    other = second(installation, "sink")
    other.launch()
    wait_for(lambda: assigned(other))
    wait_for(lambda: "partitions revoked" in first.log.read_text())
    assert first.stop() == 0
    stream.finish()
    wait_for(lambda: lag(installation) == 0, 60)
    counts = count_stream(stream, installation)
    assert not any(count.lost or count.twice for count in counts), counts


def test_offsets_are_committed_up_to_the_first_unwritten_reading(
    installation: Installation,
) -> None:
    """After a kill while InfluxDB is down, the sink fetches the unwritten records again."""
    installation.worker("bridge").start()
    sink = installation.worker("sink")
    sink.start()
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as device:
        device.send_all([(topic, reading(fuel=1))])
        wait_for(lambda: len(installation.points("fuel")) == 1)
        wait_for(lambda: lag(installation) == 0)
        installation.backbone.influxdb.kill()
        device.send_all([(topic, reading(fuel=number)) for number in range(2, 302)])
    profile = installation.profile
    wait_for(lambda: not installation.healthy(installation.sink_port))
    time.sleep(1)
    assert lag(installation) == 300
    sink.kill()
    installation.backbone.influxdb.start()
    installation.worker("sink", label="again").launch()
    wait_for(lambda: lag(installation) == 0, 60)
    values = sorted(value for _, _, value in installation.points("fuel"))
    assert values == [float(number) for number in range(1, 302)]
    ends = end_of_topic(installation.kafka, profile.topics.raw)
    committed = committed_offsets(
        installation.kafka, profile.topics.raw, profile.sink_group, sorted(ends)
    )
    assert committed == ends


def test_aborted_transactions_do_not_stall_the_sink(installation: Installation) -> None:
    """Offsets without a reading, from another producer's aborted transaction, are skipped."""
    topic = installation.profile.topics.raw
    producer = installation.kafka.producer(transactional_id=f"{installation.name}-other")
    producer.init_transactions(20)
    for commit in (False, True, False):
        producer.begin_transaction()
        value = b'{"generatorID": "g", "lat": 1, "lon": 1, "temperature": 1, "power": 1, '
        value += b'"load": 1, "fuel": %d}' % (100 + commit)
        for partition in range(3):
            producer.produce(topic, value, b"g", partition=partition)
        producer.flush(10)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    sink = installation.worker("sink")
    sink.launch()
    wait_for(lambda: lag(installation) == 0, 60)
    assert {value for _, _, value in installation.points("fuel")} == {101.0}
    # The last offset of each partition is an abort marker, and it is committed.
    ends = end_of_topic(installation.kafka, topic)
    group = installation.profile.sink_group
    assert committed_offsets(installation.kafka, topic, group, sorted(ends)) == ends
    assert all(end > 2 for end in ends.values())


def test_a_killed_bridge_resumes_its_own_session(installation: Installation) -> None:
    """Each bridge resumes its session and finds its own readings among those of the other."""
    name = installation.name
    devices = [f"timed{number}" for number in range(5)]
    first = installation.worker(
        "bridge", HEADRACE_MQTT_TOPICS=",".join(f"{name}/{device}" for device in devices[:2])
    )
    other = second(
        installation,
        "bridge",
        HEADRACE_BRIDGE_ID=f"other-{name}",
        HEADRACE_MQTT_TOPICS=",".join(f"{name}/{device}" for device in devices[2:]),
    )
    first.start()
    other.launch()
    installation.worker("sink").launch()
    wait_for(lambda: "connected to the broker" in other.log.read_text())
    stream = Stream(installation, "timed", qos=1, with_time=False, rate=500)
    stream.start()
    for _ in range(4):
        time.sleep(1)
        other.kill()
        time.sleep(0.3)
        other.launch()
    stream.finish()
    wait_for(lambda: "connected to the broker" in other.log.read_text())
    wait_for(lambda: not count_stream(stream, installation)[1].lost, 60, every=1)
    counts = count_stream(stream, installation)
    assert not any(count.lost or count.twice for count in counts), counts
    bridges = {
        record.headers["bridge"].decode()
        for record in installation.records(installation.profile.topics.raw)
    }
    assert bridges == {f"bridge-{name}", f"other-{name}"}


def test_a_retired_bridge_leaves_no_session_and_no_readings(installation: Installation) -> None:
    """Retiring stores the queued readings and removes the session."""
    bridge = installation.worker("bridge")
    bridge.start()
    assert bridge.stop() == 0
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as device:
        device.send_all([(topic, reading(fuel=number)) for number in range(50)])
        retired = installation.headrace("bridge", "--retire")
        assert retired.returncode == 0, retired.stderr
        raw = installation.profile.topics.raw
        assert len(installation.records(raw)) == 50
        # A new bridge of the same name starts with an empty session.
        device.send_all([(topic, reading(fuel=99))])
    retired = installation.headrace("bridge", "--retire")
    assert retired.returncode == 1
    assert f"the broker has no session bridge-{installation.name}" in retired.stderr
    again = installation.worker("bridge", label="again")
    again.start()
    assert "session=new" in again.log.read_text()
    assert len(installation.records(raw)) == 50


def publish_backlog(installation: Installation, readings: int) -> None:
    """Queue readings in the broker for a stopped bridge."""
    bridge = installation.worker("bridge")
    bridge.start()
    assert bridge.stop() == 0
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as device:
        for begin in range(0, readings, 10_000):
            numbers = range(begin, min(begin + 10_000, readings))
            device.send_all([(topic, reading(fuel=number)) for number in numbers], seconds=120)


def test_an_interrupted_retirement_loses_nothing(installation: Installation) -> None:
    """Retiring stops halfway through 60,000 readings; the next bridge stores the rest."""
    readings = 60_000
    publish_backlog(installation, readings)
    raw = installation.profile.topics.raw
    retired = installation.worker("bridge", "--retire", label="retire")
    retired.launch()
    wait_for(lambda: "connected to the broker" in retired.log.read_text(), every=0.02)
    wait_for(lambda: held_records(installation.kafka, raw) > 0, every=0.02)
    time.sleep(0.3)
    assert retired.stop() == 1
    assert "Nothing was removed" in retired.log.read_text()
    left = readings - held_records(installation.kafka, raw)
    assert left > 0, "interrupted too late to show anything"
    again = installation.worker("bridge", label="again")
    again.start()
    assert "session=resumed" in again.log.read_text()
    wait_for(lambda: held_records(installation.kafka, raw) >= readings, 120)
    time.sleep(1)
    assert held_records(installation.kafka, raw) == readings


def test_two_bridges_with_one_id_store_nothing_twice(
    installation: Installation,
) -> None:
    first = installation.worker("bridge")
    first.start()
    stream = Stream(installation, "plain", qos=1, with_time=False, rate=80)
    stream.start()
    time.sleep(2)
    other = second(installation, "bridge")
    other.launch()
    taken = "another client took this session"
    # The bridge without the session reports it.
    wait_for(lambda: taken in first.log.read_text() and taken in other.log.read_text())
    stream.finish()
    raw = installation.profile.topics.raw
    wait_for(lambda: held_records(installation.kafka, raw) >= len(stream.acknowledged), 60)
    time.sleep(1)
    numbers = [json.loads(record.value)["fuel"] for record in installation.records(raw)]
    assert sorted(numbers) == sorted(stream.acknowledged)
    # Each bridge waits before it takes the session back.
    connects = (first.log.read_text() + other.log.read_text()).count("connected to the broker")
    assert connects <= 8
    assert first.stop() == 0
    assert other.stop() == 0


@pytest.mark.long
def test_a_running_bridge_is_not_retired(installation: Installation) -> None:
    bridge = installation.worker("bridge")
    bridge.start()
    retired = installation.headrace(
        "bridge", "--retire", HEADRACE_BRIDGE_METRICS_PORT=str(free_port())
    )
    assert retired.returncode == 1
    assert "still runs. Stop it first" in retired.stderr
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as device:
        device.send_all([(topic, reading(fuel=1))])
    wait_for(lambda: len(installation.records(installation.profile.topics.raw)) == 1)
    assert bridge.stop() == 0


@pytest.mark.long
def test_two_bridges_can_share_a_subscription(installation: Installation) -> None:
    """Two bridges share one filter: each reading arrives once, not in each device's order."""
    name = installation.name
    shared = {"HEADRACE_MQTT_TOPICS": f"$share/bridges/{name}/+"}
    first = installation.worker("bridge", **shared)
    other = second(installation, "bridge", HEADRACE_BRIDGE_ID=f"other-{name}", **shared)
    first.start()
    other.launch()
    wait_for(lambda: "connected to the broker" in other.log.read_text())
    stream = Stream(installation, "timed", qos=1, with_time=True, rate=500)
    stream.start()
    time.sleep(10)
    stream.finish()
    installation.worker("sink").launch()
    wait_for(lambda: not count_stream(stream, installation)[1].lost, 60, every=1)
    counts = count_stream(stream, installation)
    assert not any(count.lost or count.twice for count in counts), counts
    shares = [
        record.headers["bridge"] for record in installation.records(installation.profile.topics.raw)
    ]
    assert 0.2 < shares.count(f"other-{name}".encode()) / len(shares) < 0.8
