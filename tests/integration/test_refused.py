"""Refused readings become dead letters; the sink waits if the cause is not the reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from confluent_kafka import OFFSET_END, TopicPartition

from headrace.models.device_time import epoch_ns
from headrace.models.window import rfc3339
from headrace.stages.ingest_progress import sink_lag
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for

#: Long enough ago to be in another shard than today.
SOME_DAYS = timedelta(days=8)


def lag(installation: Installation) -> int:
    profile = installation.profile
    return sink_lag(installation.kafka, profile.topics.raw, profile.sink_group)


def make_fuel_an_integer(installation: Installation, moment: datetime) -> None:
    """Make InfluxDB refuse floats in the shard of this moment."""
    line = f"genData,generatorID=another fuel=1i {epoch_ns(moment)}"
    with installation.admin_influx() as influx:
        influx.write(installation.profile.buckets.raw, line.encode())


@contextmanager
def without_access(installation: Installation) -> Iterator[str]:
    """Make InfluxDB refuse the sink's token, which is yielded, for a while."""
    token = (installation.settings.tokens_dir / "sink.token").read_text().strip()
    with installation.admin_influx() as influx:
        api = influx.client.authorizations_api()
        (authorization,) = [item for item in api.find_authorizations() if item.token == token]
        authorization.status = "inactive"
        api.update_authorization(authorization)
        yield token
        authorization.status = "active"
        api.update_authorization(authorization)


def test_refused_points_become_dead_letters_and_the_others_are_written(
    installation: Installation,
) -> None:
    """A 422 names only one field, so the batch is halved until each refused point is alone."""
    now = datetime.now(UTC)
    then = now - SOME_DAYS
    make_fuel_an_integer(installation, then)
    installation.worker("bridge").start()
    messages = []
    for number in range(200):
        old = number % 20 == 7
        more = {"time": rfc3339(then + timedelta(seconds=number))} if old else {}
        device = f"generator{number % 4}"
        payload = reading(device, fuel=number, **more)
        messages.append((f"{installation.name}/{device}", payload))
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all(messages)
    topics = installation.profile.topics
    wait_for(lambda: len(installation.records(topics.raw)) == 200)
    # All in one batch.
    installation.worker("sink").launch()
    wait_for(lambda: lag(installation) == 0, 60)
    letters = installation.records(topics.dead_letter)
    assert len(letters) == 10
    for letter in letters:
        assert letter.headers["reason"] == b"influx_refused"
        assert b"field type conflict" in letter.headers["detail"]
        assert letter.headers["source"].decode().startswith(f"{topics.raw}/")
    good = {number for number in range(200) if number % 20 != 7}
    # A query over both types of the field returns only one of them.
    fuel = [value for _, _, value in installation.points("fuel", age=SOME_DAYS / 2)]
    assert sorted(fuel) == sorted(float(number) for number in good)
    name = "headrace_sink_rejected"
    assert installation.metric(installation.sink_port, name, reason="influx_refused") == 10


def test_a_refused_reading_that_kafka_deleted_is_reported_as_lost(
    installation: Installation,
) -> None:
    """It can't become a dead letter any more; the other readings are still written."""
    then = datetime.now(UTC) - SOME_DAYS
    make_fuel_an_integer(installation, then)
    topics = installation.profile.topics
    installation.worker("bridge").start()
    sink = installation.worker("sink")
    with without_access(installation):
        sink.launch()
        more = [{}, {"time": rfc3339(then)}, {}]
        topic = f"{installation.name}/generator1"
        with Publisher(installation.backbone.mqtt_port) as publisher:
            publisher.send_all(
                [(topic, reading(fuel=number, **item)) for number, item in enumerate(more)]
            )
        wait_for(lambda: "Is the token right?" in sink.log.read_text())
        admin = installation.kafka.admin()
        ends = [TopicPartition(topics.raw, partition, OFFSET_END) for partition in range(3)]
        for future in admin.delete_records(ends).values():
            future.result()
    # The lag does not count deleted records.
    (told,) = wait_for(
        lambda: [line for line in sink.log.read_text().splitlines() if "records deleted" in line]
    )
    assert "refused 1 readings" in told
    assert "fuel=1" in told
    fuel = [value for _, _, value in installation.points("fuel", age=SOME_DAYS / 2)]
    assert sorted(fuel) == [0.0, 2.0]
    (report,) = wait_for(lambda: installation.records(topics.dead_letter))
    assert (report.value, report.headers["reason"]) == (b"", b"kafka_deleted")
    assert b"fuel=1" in report.headers["detail"]


def test_the_sink_waits_while_its_token_is_refused(installation: Installation) -> None:
    sink = installation.worker("sink")
    installation.worker("bridge").start()
    with without_access(installation) as token:
        sink.launch()
        topic = f"{installation.name}/generator1"
        with Publisher(installation.backbone.mqtt_port) as publisher:
            publisher.send_all([(topic, reading(fuel=number)) for number in range(20)])

        def complains() -> bool:
            report = installation.health(installation.sink_port)
            state = report.get("conditions", {}).get("influxdb", {}).get("state", "")
            return "Is the token right?" in str(state)

        wait_for(complains)
        assert installation.points("fuel") == []
    wait_for(lambda: lag(installation) == 0, 60)
    assert len(installation.points("fuel")) == 20
    assert installation.records(installation.profile.topics.dead_letter) == []
    assert token not in sink.log.read_text()


def test_the_sink_waits_while_the_bucket_is_missing(installation: Installation) -> None:
    bucket_name = installation.profile.buckets.raw
    installation.worker("bridge").start()
    sink = installation.worker("sink")
    sink.start()
    with installation.admin_influx() as influx:
        api = influx.client.buckets_api()
        bucket = api.find_bucket_by_name(bucket_name)
        bucket.name = f"{bucket_name}_elsewhere"
        api.update_bucket(bucket)
        topic = f"{installation.name}/generator1"
        with Publisher(installation.backbone.mqtt_port) as publisher:
            publisher.send_all([(topic, reading(fuel=number)) for number in range(20)])
        wait_for(lambda: not installation.healthy(installation.sink_port))
        state = installation.health(installation.sink_port)["conditions"]["influxdb"]["state"]
        assert "headrace provision" in state
        bucket.name = bucket_name
        api.update_bucket(bucket)
    wait_for(lambda: lag(installation) == 0, 60)
    assert len(installation.points("fuel")) == 20


def test_readings_refused_by_kafka_become_dead_letters(installation: Installation) -> None:
    """A record can be too large for the topic. No timestamp is refused, however old."""
    topics = installation.profile.topics
    installation.alter_topic(
        topics.raw, message_timestamp_before_max_ms="3600000", max_message_bytes="2000"
    )
    bridge = installation.worker("bridge")
    bridge.start()
    old = rfc3339(datetime.now(UTC) - timedelta(hours=2))
    messages = []
    for number in range(60):
        device = f"generator{number % 3}"
        more = {"time": old} if number == 20 else {}
        more |= {"note": "x" * 3000} if number == 40 else {}
        messages.append((f"{installation.name}/{device}", reading(device, fuel=number, **more)))
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all(messages)
    letters = wait_for(lambda: installation.records(topics.dead_letter))
    assert [(letter.headers["reason"], b'"fuel": 40' in letter.value) for letter in letters] == [
        (b"kafka_refused", True)
    ]
    # The gauge is set once a second and is 0 before that, too.
    wait_for(lambda: len(installation.records(topics.raw)) >= 59)
    wait_for(
        lambda: installation.metric(installation.bridge_port, "headrace_bridge_in_flight") == 0
    )
    records = installation.records(topics.raw)
    assert len(records) == 59
    # Retried records have all headers, too.
    kept = {"time_ns", "topic", "bridge", "packet_id"}
    assert all(record.headers.keys() >= kept for record in [*records, *letters])
