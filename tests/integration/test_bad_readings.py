"""A bad reading neither blocks nor drops other readings."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.models.deadletter import Reason
from headrace.models.window import rfc3339
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for

DEVICE = "generator1"


def in_json(device: str = DEVICE, **changes: Any) -> bytes:
    return json.dumps(reading(device, **changes)).encode()


def bad_readings() -> list[tuple[str, bytes, Reason]]:
    """Return device in the topic, payload, and the expected reason for rejection."""
    now = datetime.now(UTC)
    return [
        (DEVICE, b"not json", Reason.NOT_JSON),
        (DEVICE, in_json(fuel=...).decode().encode("utf-16"), Reason.NOT_JSON),
        (DEVICE, b"[1, 2, 3]", Reason.NOT_AN_OBJECT),
        (DEVICE, in_json(fuel=...), Reason.MISSING_FIELD),
        (DEVICE, in_json(fuel="full"), Reason.WRONG_TYPE),
        (DEVICE, in_json(fuel=math.nan), Reason.NOT_FINITE),
        (DEVICE, in_json(fuel=-math.inf), Reason.NOT_FINITE),
        (DEVICE, in_json(generatorID="generator2"), Reason.ID_MISMATCH),
        ("trailing\\", in_json(generatorID="trailing\\"), Reason.ID_UNWRITABLE),
        (DEVICE, in_json(note="x" * 70_000), Reason.TOO_LARGE),
        (DEVICE, in_json(note="y" * 900_000), Reason.TOO_LARGE),
        (DEVICE, in_json(time="half past"), Reason.TIME_INVALID),
        (DEVICE, in_json(time=int(now.timestamp())), Reason.TIME_INVALID),
        (DEVICE, in_json(time=rfc3339(now - timedelta(days=31))), Reason.TIME_TOO_OLD),
        (DEVICE, in_json(time=rfc3339(now + timedelta(minutes=6))), Reason.TIME_AHEAD),
    ]


def test_bad_readings_become_dead_letters_and_good_ones_are_stored(
    installation: Installation,
) -> None:
    installation.worker("bridge").start()
    installation.worker("sink").launch()
    bad = bad_readings()
    messages: list[tuple[str, Any]] = []
    for number, (device, payload, _) in enumerate(bad):
        messages.append((f"{installation.name}/{device}", payload))
        messages.append((f"{installation.name}/{DEVICE}", in_json(fuel=1000 + number)))
    # A byte order mark is skipped. A message that only clears a retained message is ignored.
    messages.append((f"{installation.name}/marked", b"\xef\xbb\xbf" + in_json("marked")))
    messages.append((f"{installation.name}/{DEVICE}", b""))
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all(messages)
    topics = installation.profile.topics
    letters = wait_for(
        lambda: found if len(found := installation.records(topics.dead_letter)) >= len(bad) else []
    )
    assert len(letters) == len(bad)
    # Each dead letter has the payload byte for byte, up to 64 KiB, and the reason.
    by_value = {(letter.value, letter.headers["reason"].decode()): letter for letter in letters}
    for device, payload, reason in bad:
        letter = by_value[payload[:65_536], reason.value]
        assert letter.headers["size"].decode() == str(len(payload))
        assert letter.headers["topic"].decode() == f"{installation.name}/{device}"
        assert letter.headers["detail"]
        assert int(letter.headers["time_ns"]) > 0
    good = wait_for(lambda: p if len(p := installation.points("fuel")) > len(bad) else [])
    assert sorted((device, value) for device, _, value in good) == [
        *((DEVICE, 1000.0 + number) for number in range(len(bad))),
        ("marked", 700.0),
    ]
    # Dead letters are counted by reason, and every message was acknowledged.
    port = installation.bridge_port
    for reason in {reason for _, _, reason in bad}:
        expected = sum(other is reason for _, _, other in bad)
        name = "headrace_bridge_rejected"
        assert installation.metric(port, name, reason=reason.value) == expected
    assert installation.metric(port, "headrace_bridge_received") == 2 * len(bad) + 1
    assert installation.metric(port, "headrace_bridge_ignored", kind="empty") == 1
    assert installation.health(port)["healthy"]


def test_the_sink_rejects_bad_records_from_other_producers(
    installation: Installation,
) -> None:
    """Any producer can write to the raw topic, so the sink checks every record."""
    producer = installation.kafka.producer()
    topics = installation.profile.topics
    producer.produce(topics.raw, b"from elsewhere", b"generator1", partition=0)
    producer.produce(topics.raw, in_json(fuel=5), b"generator1", partition=0)
    producer.produce(
        topics.raw, in_json(fuel=6), b"generator1", partition=0, headers={"time_ns": b"soon"}
    )
    producer.flush(10)
    installation.worker("sink").launch()
    points = wait_for(lambda: installation.points("fuel"))
    assert [value for _, _, value in points] == [5.0]
    letters = wait_for(
        lambda: found if len(found := installation.records(topics.dead_letter)) >= 2 else []
    )
    assert [(letter.value, letter.headers["reason"]) for letter in letters] == [
        (b"from elsewhere", b"not_json"),
        (in_json(fuel=6), b"time_invalid"),
    ]
    assert [letter.headers["source"].decode() for letter in letters] == [
        f"{topics.raw}/0/0",
        f"{topics.raw}/0/2",
    ]


def test_a_missing_dead_letter_topic_is_reported_and_good_readings_pass(
    installation: Installation,
) -> None:
    """Acknowledgements must be in order, so up to Receive Maximum messages pass a blocked one."""
    topics, port = installation.profile.topics, installation.bridge_port
    worker = installation.worker("bridge")
    worker.start()
    admin = installation.kafka.admin()
    admin.delete_topics([topics.dead_letter])[topics.dead_letter].result()
    topic = f"{installation.name}/{DEVICE}"
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all([(topic, b"bad"), *((topic, in_json(fuel=n)) for n in range(100))])
    wait_for(lambda: len(installation.records(topics.raw)) == 100, 20)

    def state() -> str:
        return str(installation.health(port)["conditions"]["kafka"]["state"])

    wait_for(lambda: topics.dead_letter in state(), 40)
    assert "headrace provision" in state()
    assert worker.log.read_text().count("Kafka does not accept records, retrying") == 1
    installation.provision()
    wait_for(lambda: installation.healthy(port), 40)
    assert [letter.value for letter in installation.records(topics.dead_letter)] == [b"bad"]
    assert len(installation.records(topics.raw)) == 100
    assert worker.alive
