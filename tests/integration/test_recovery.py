"""`headrace audit` counts readings at every stage; replay sends readings again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from influxdb_client import BucketRetentionRules

from headrace.models.window import rfc3339
from headrace.recovery.letters import unanswered_letters
from headrace.stages.ingest_progress import sink_lag
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for

HOUR = timedelta(hours=1)


def start_ingest(installation: Installation) -> None:
    installation.worker("bridge").start()
    installation.worker("sink").launch()


def send(installation: Installation, *readings: dict[str, Any]) -> None:
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all(
            [(f"{installation.name}/{item['generatorID']}", item) for item in readings]
        )


def settled(installation: Installation, records: int) -> None:
    """Wait until this number of records is in Kafka and the sink has read them all."""
    profile = installation.profile
    wait_for(lambda: len(installation.records(profile.topics.raw)) == records)
    wait_for(lambda: sink_lag(installation.kafka, profile.topics.raw, profile.sink_group) == 0, 60)


def audited(installation: Installation, start: datetime, stop: datetime) -> dict[str, Any]:
    done = installation.headrace("audit", "--from", rfc3339(start), "--to", rfc3339(stop), "--json")
    content: dict[str, Any] = json.loads(done.stdout)
    lost = content["lost"] or content["deleted"]
    assert done.returncode == (1 if lost else 0), done.stderr
    return content


def status_with_kafka(installation: Installation) -> dict[str, Any]:
    """Return the status after Kafka has answered in time, which a busy machine may miss."""

    def ask() -> dict[str, Any] | None:
        status: dict[str, Any] = json.loads(installation.headrace("status", "--json").stdout)
        return status if status["components"]["kafka"]["state"] == "up" else None

    return wait_for(ask)


@pytest.mark.runs("cli:audit", "cli:replay")
def test_audit_finds_lost_readings_and_replay_restores_them(installation: Installation) -> None:
    start_ingest(installation)
    now = datetime.now(UTC).replace(microsecond=0)
    times = [
        now - timedelta(minutes=50) + timedelta(seconds=10 * n, microseconds=n) for n in range(100)
    ]
    send(
        installation,
        *(reading(f"g{n % 3}", fuel=n, time=rfc3339(time)) for n, time in enumerate(times)),
    )
    settled(installation, 100)
    start, stop = now - HOUR, now
    whole = audited(installation, start, stop)
    assert (whole["readings"], whole["points"], whole["lost"], whole["foreign"]) == (100, 100, 0, 0)
    assert whole["complete"]
    with installation.admin_influx() as influx:
        influx.delete(installation.profile.buckets.raw, times[10], times[20], "genData")
    short = audited(installation, start, stop)
    assert (short["points"], short["lost"]) == (90, 10)
    assert short["missing"][0] == {
        "device": "g1",
        "time": f"{times[10]:%Y-%m-%dT%H:%M:%S}.000010000Z",
    }
    before = sorted(installation.points("fuel"))
    stretch = ("--from", rfc3339(start), "--to", rfc3339(stop))
    done = installation.headrace("replay", *stretch)
    assert done.returncode == 0, done.stderr
    after = sorted(installation.points("fuel"))
    assert len(after) == 100
    assert set(before) < set(after)
    assert audited(installation, start, stop)["lost"] == 0
    # Nothing is missing now, so replaying again changes nothing.
    assert installation.headrace("replay", *stretch).returncode == 0
    assert sorted(installation.points("fuel")) == after


def test_audit_tells_overwritten_readings_from_lost_ones(installation: Installation) -> None:
    start_ingest(installation)
    now = datetime.now(UTC).replace(microsecond=0)
    time = rfc3339(now - timedelta(minutes=5))
    send(
        installation,
        reading(fuel=1, time=time),
        reading(fuel=1, time=time),
        reading(fuel=2, time=time),
        reading(fuel=3),
    )
    settled(installation, 4)
    counts = audited(installation, now - HOUR, now + HOUR)
    assert (counts["readings"], counts["points"]) == (4, 2)
    assert (counts["repeated"], counts["overwritten"], counts["lost"]) == (1, 1, 0)


def test_audit_is_exact_while_readings_arrive(installation: Installation) -> None:
    """Records that the sink has not read yet are pending, not lost."""
    installation.worker("bridge").start()
    send(installation, *(reading(fuel=n) for n in range(50)))
    wait_for(lambda: len(installation.records(installation.profile.topics.raw)) == 50)
    now = datetime.now(UTC)
    counts = audited(installation, now - HOUR, now + HOUR)
    assert (counts["readings"], counts["pending"], counts["lost"]) == (50, 50, 0)


def test_audit_reports_that_kafka_deleted_records_of_the_range(installation: Installation) -> None:
    start_ingest(installation)
    send(installation, *(reading(f"g{n}", fuel=n) for n in range(30)))
    settled(installation, 30)
    now = datetime.now(UTC)
    assert audited(installation, now - HOUR, now + HOUR)["complete"]
    admin = installation.kafka.admin()
    raw = installation.profile.topics.raw
    for future in admin.delete_records([TopicPartition(raw, 0, -1)]).values():
        future.result()
    counts = audited(installation, now - HOUR, now + HOUR)
    assert not counts["complete"]
    assert "partitions [0]" in counts["note"]
    assert counts["foreign"] == 30 - counts["readings"] > 0


def test_records_deleted_before_the_sink_read_them_are_reported(
    installation: Installation,
) -> None:
    """The log, metrics, /healthz, the dead letters, audit and status report them."""
    topics = installation.profile.topics
    installation.worker("bridge").start()
    sink = installation.worker("sink")
    sink.start()
    send(installation, *(reading(f"g{n}", fuel=n) for n in range(30)))
    settled(installation, 30)
    sink.stop()
    send(installation, *(reading(f"g{n}", fuel=n) for n in range(30)))
    wait_for(lambda: len(installation.records(topics.raw)) == 60)
    admin = installation.kafka.admin()
    for future in admin.delete_records([TopicPartition(topics.raw, 0, -1)]).values():
        future.result()
    left = [record for record in installation.records(topics.raw) if record.partition == 0]
    assert left == []
    sink.start()
    (report,) = wait_for(lambda: installation.records(topics.dead_letter))
    first, stop = (int(report.headers[name]) for name in ("offset_start", "offset_stop"))
    gone = stop - first
    assert gone > 0
    wait_for(lambda: sink_lag(installation.kafka, topics.raw, installation.profile.sink_group) == 0)
    assert sink.log.read_text().count("records deleted before they were written") == 1
    assert installation.metric(installation.sink_port, "headrace_sink_lost") == gone
    (noted,) = installation.health(installation.sink_port)["lost"]
    assert (noted["partition"], noted["start"], noted["stop"]) == (0, first, stop)
    now = datetime.now(UTC)
    counts = audited(installation, now - HOUR, now + HOUR)
    (named,) = counts["deleted"]
    assert (named["topic"], named["start"], named["stop"]) == (topics.raw, first, stop)
    # The loss is reported once and still known after a restart.
    sink.stop()
    sink.start()
    assert len(installation.records(topics.dead_letter)) == 1
    status = status_with_kafka(installation)
    assert [(item["start"], item["stop"]) for item in status["sink"]["lost"]] == [(first, stop)]
    assert any(f"offsets {first} to {stop - 1}" in problem for problem in status["problems"])
    # A lost record is not a rejected reading.
    assert list(unanswered_letters(installation.kafka, installation.profile)) == []


def test_commands_skip_foreign_records(installation: Installation) -> None:
    """With garbage, tombstones and odd keys, no command fails and no reading is lost."""
    topics = installation.profile.topics
    start_ingest(installation)
    send(installation, reading("[red]g1", fuel=1), reading("g2", fuel="not a number"))
    settled(installation, 1)
    good = json.dumps(reading("g3", fuel=3)).encode()
    unequal: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (b"x", b"hello", []),
        (b"x", b"[]", []),
        (b"x", None, []),
        (None, None, []),
        (b"\xff\xfe", b"\xff\xfe\x00", [("reason", b"\xff"), ("time_ns", b"9" * 5000)]),
        (b"x", b"{}", [("reason", b"replayed")]),
        (b"x", b"{}", [("reason", b"kafka_deleted"), ("source", b"x/y/z")]),
        (b"x", b"{}", [("reason", b"bad_mood"), ("reason", b"wrong_type")]),
        (b"other", good, [("time_ns", b"+5")]),
        (b"other", good, [("time_ns", b"1_000")]),
        (b"other", good, [("time_ns", "\u0661".encode())]),
        (b"other", good, [("time_ns", b"9" * 30)]),
        (b"other", good, [("time_ns", None)]),
        # A good reading with the wrong key is stored under the id in its payload.
        (b"other", good, []),
    ]
    producer = installation.kafka.producer()
    for topic in (topics.raw, topics.dead_letter, topics.status):
        for key, value, headers in unequal:
            # A compacted topic refuses a record without a key, and its whole batch with it.
            if key is not None or topic != topics.status:
                producer.produce(topic, value, key, headers=headers)
    assert producer.flush(30) == 0
    settled(installation, 1 + len(unequal))
    wait_for(lambda: len(installation.points("fuel")) == 2)
    now = datetime.now(UTC)
    counts = audited(installation, now - HOUR, now + HOUR)
    assert (counts["points"], counts["lost"], counts["foreign"]) == (2, 0, 0)
    assert counts["skipped"] == len(unequal)
    for command in (("dead-letters",), ("replay", "--dead-letter")):
        done = installation.headrace(*command, COLUMNS="200")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    status = status_with_kafka(installation)
    assert status["kafka"]["skipped"][topics.status] >= 9
    # Names chosen by a device are printed as text.
    with installation.admin_influx() as influx:
        influx.delete(installation.profile.buckets.raw, now - HOUR, now + HOUR, "genData")
    done = installation.headrace(
        "audit", "--from", rfc3339(now - HOUR), "--to", rfc3339(now + HOUR), COLUMNS="200"
    )
    assert "[red]g1" in done.stdout


def test_retention_counts_from_the_arrival_of_a_record(installation: Installation) -> None:
    """A device's date affects neither Kafka's retention nor where audit finds a record."""
    start_ingest(installation)
    begun = datetime.now(UTC) - timedelta(seconds=5)
    old = datetime.now(UTC).replace(microsecond=0) - timedelta(days=8)
    send(installation, reading(fuel=1, time=rfc3339(old)), reading(fuel="?", time=rfc3339(old)))
    settled(installation, 1)
    topics = installation.profile.topics
    for topic in (topics.raw, topics.dead_letter):
        (record,) = wait_for(lambda topic=topic: installation.records(topic))
        assert record.timestamp_ms > begun.timestamp() * 1000
    now = datetime.now(UTC)
    assert audited(installation, now - HOUR, now + HOUR)["readings"] == 0
    with installation.admin_influx() as influx:
        influx.delete(installation.profile.buckets.raw, old - HOUR, old + HOUR, "genData")
    between = (old - HOUR, old + HOUR)
    done = installation.headrace("replay", "--from", rfc3339(between[0]), "--to", rfc3339(now))
    assert done.returncode == 0, done.stderr
    counts = audited(installation, *between)
    assert (counts["readings"], counts["points"], counts["lost"]) == (1, 1, 0)


def test_replayed_dead_letters_are_stored_after_the_cause_is_fixed(
    install: Callable[..., Installation],
) -> None:
    """The bridge rejects readings for a time limit that is then raised; they keep their time."""
    installation = install(HEADRACE_MAX_TIME_AHEAD="1s")
    start_ingest(installation)
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=100)
    send(
        installation,
        reading(fuel=1, time=rfc3339(ahead)),
        reading(fuel="not a number"),
        reading(fuel=2),
    )
    topics = installation.profile.topics
    wait_for(lambda: len(installation.records(topics.dead_letter)) == 2)
    settled(installation, 1)
    shown = installation.headrace("dead-letters", COLUMNS="200").stdout
    assert f"time '{rfc3339(ahead)}' is" in shown
    assert "fuel is text" in shown
    # A reading that is still bad stays a dead letter.
    done = installation.headrace("replay", "--dead-letter")
    assert done.returncode == 0, done.stderr
    assert "left: time_ahead" in done.stdout
    assert "left: wrong_type" in done.stdout
    mended = {"HEADRACE_MAX_TIME_AHEAD": "5m"}
    done = installation.headrace("replay", "--dead-letter", "--reason", "time_ahead", **mended)
    assert done.returncode == 0, done.stderr
    settled(installation, 2)
    points = {value: time for _, time, value in installation.points("fuel")}
    assert points[1.0] == ahead
    # A dead letter is sent once; after that it counts as replayed.
    again = installation.headrace("replay", "--dead-letter", **mended)
    assert "left: wrong_type" in again.stdout
    assert "sent" not in again.stdout
    assert len(installation.records(topics.raw)) == 2
    shown = installation.headrace("dead-letters", COLUMNS="200").stdout
    assert "wrong_type" in shown
    assert "time_ahead" not in shown


@pytest.mark.runs("cli:dead-letters")
def test_dead_letters_are_shown_without_control_characters(installation: Installation) -> None:
    """The newest dead letters, optionally of one reason, without terminal control sequences."""
    none = installation.headrace("dead-letters")
    assert "no dead letters" in none.stdout
    installation.worker("bridge").start()
    topic = f"{installation.name}/generator1"
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all([(topic, b"[1]"), *((topic, b"\x1b[2J %d \xff" % n) for n in range(5))])
    wait_for(lambda: len(installation.records(installation.profile.topics.dead_letter)) == 6)
    done = installation.headrace(
        "dead-letters", "--last", "2", "--reason", "not_json", COLUMNS="200"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(topic) == 2
    assert "\\x1b[2J 4 \\xff" in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert "not_an_object" not in done.stdout
    assert "│ 5" in done.stdout


def test_readings_refused_by_influxdb_can_be_replayed(install: Callable[..., Installation]) -> None:
    """A reading older than the bucket's retention is stored once the retention is longer."""
    installation = install()
    bucket_name = installation.profile.buckets.raw

    def keep(influx: Any, days: int) -> None:
        api = influx.client.buckets_api()
        bucket = api.find_bucket_by_name(bucket_name)
        bucket.retention_rules = [BucketRetentionRules(type="expire", every_seconds=days * 86400)]
        api.update_bucket(bucket)

    with installation.admin_influx() as influx:
        keep(influx, 1)
        start_ingest(installation)
        old = datetime.now(UTC).replace(microsecond=0) - timedelta(days=9)
        send(installation, reading(fuel=1, time=rfc3339(old)), reading(fuel=2))
        topics = installation.profile.topics
        (letter,) = wait_for(lambda: installation.records(topics.dead_letter))
        assert letter.headers["reason"] == b"influx_refused"
        settled(installation, 2)
        counts = audited(installation, old - HOUR, old + HOUR)
        assert (counts["readings"], counts["refused"], counts["dead_letters"]) == (1, 1, 1)
        assert counts["lost"] == 0
        keep(influx, 30)
    done = installation.headrace("replay", "--dead-letter")
    assert done.returncode == 0, done.stderr
    assert "written" in done.stdout
    assert sorted(value for _, _, value in installation.points("fuel")) == [1.0, 2.0]
    counts = audited(installation, old - HOUR, old + HOUR)
    assert (counts["points"], counts["refused"], counts["dead_letters"]) == (1, 0, 0)


def test_wrong_arguments_are_reported(installation: Installation) -> None:
    for arguments, named in (
        (("replay",), "--dead-letter"),
        (("replay", "--dead-letter", "--from", "2026-01-01T00:00:00Z"), "--dead-letter"),
        (("replay", "--dead-letter", "--reason", "bad_mood"), "bad_mood"),
        (("dead-letters", "--reason", "bad_mood"), "bad_mood"),
        (("replay", "--from", "2026-01-01T00:00:00Z"), "--to"),
        (("audit", "--from", "yesterday", "--to", "today"), "yesterday"),
        (
            ("audit", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"),
            "must be before",
        ),
    ):
        done = installation.headrace(*arguments)
        assert done.returncode == 1
        assert named in done.stderr
        assert "Traceback" not in done.stderr
