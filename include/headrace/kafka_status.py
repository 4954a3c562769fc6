"""Requests of ``headrace status`` to Kafka. Their number does not depend on the data."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from headrace.errors import MissingResourceError
from headrace.ingest.presence import parse_record
from headrace.models.lost import merged
from headrace.models.presence import Presence, PresenceState
from headrace.models.window import rfc3339
from headrace.profile import Profile
from headrace.stages.ingest_progress import committed_offsets
from headrace.storage.kafka import Kafka, Record, kafka_errors
from headrace.storage.kafka_log import read_topic
from headrace.storage.lost_ledger import recorded_losses, unreported_losses
from headrace.storage.records import SkippedRecords, own_records

__all__ = ["ask_kafka", "ask_presence"]

#: Records that arrived within this time may still wait for the sink.
_LAG_ALLOWED = timedelta(minutes=1)

#: Offsets by topic and partition.
_Offsets = dict[str, dict[int, int]]


def ask_kafka(profile: Profile, kafka: Kafka, limit: timedelta) -> dict[str, dict[str, Any]]:
    """Count records by offsets and read the committed offsets of the sink.

    Raises
    ------
    MissingResourceError
        If a topic does not exist.
    AccessDeniedError, TransientError
        If Kafka refuses or does not answer in time.
    """
    kafka.check_connection(limit)
    topics = profile.topics
    names = {
        "raw": topics.raw,
        "dead_letter": topics.dead_letter,
        "downsampled": topics.downsampled,
        "alarms": topics.alarms,
    }
    # Use one client for all requests, because each new one looks up the partitions' leaders.
    admin = kafka.admin()
    partitions = _partitions(admin, list(names.values()), limit)
    first, end = (
        _offsets(admin, partitions, spec, limit)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
    )
    counts = {
        name: sum(end[topic][part] - first[topic][part] for part in end[topic])
        for name, topic in names.items()
    }
    raw_first, raw_end = first[topics.raw], end[topics.raw]
    committed = committed_offsets(kafka, topics.raw, profile.sink_group, sorted(raw_end))
    since = int((datetime.now(UTC) - _LAG_ALLOWED).timestamp() * 1000)
    recent = _offsets(
        admin, {topics.raw: partitions[topics.raw]}, OffsetSpec.for_timestamp(since), limit
    )[topics.raw]
    # Without a record this recent, Kafka answers -1.
    arrived = sum(raw_end[part] - offset for part, offset in recent.items() if offset >= 0)
    recorded = recorded_losses(kafka, profile, sorted(raw_end))
    lost = merged([*recorded, *unreported_losses(topics.raw, raw_first, committed)])
    return {
        "kafka": counts,
        "sink": {
            "lag": sum(
                max(0, stop - committed.get(part, raw_first[part]))
                for part, stop in raw_end.items()
            ),
            "lag_allowed": arrived,
            "lost": [{**item.as_dict(), "recorded_ms": item.recorded_ms} for item in lost],
        },
    }


def _partitions(admin: AdminClient, topics: list[str], limit: timedelta) -> dict[str, list[int]]:
    with kafka_errors():
        present = admin.list_topics(timeout=limit.total_seconds()).topics
    missing = [topic for topic in topics if topic not in present]
    if missing:
        msg = f"topics {', '.join(missing)} do not exist. `headrace provision` creates them"
        raise MissingResourceError(msg)
    return {topic: sorted(present[topic].partitions) for topic in topics}


def _offsets(
    admin: AdminClient, partitions: dict[str, list[int]], spec: OffsetSpec, limit: timedelta
) -> _Offsets:
    asked = {
        TopicPartition(topic, part): spec for topic, parts in partitions.items() for part in parts
    }
    found: _Offsets = {topic: {} for topic in partitions}
    with kafka_errors():
        futures = admin.list_offsets(asked, request_timeout=limit.total_seconds())
        for place, future in futures.items():
            found[place.topic][place.partition] = future.result().offset
    return found


def ask_presence(profile: Profile, kafka: Kafka, limit: timedelta) -> dict[str, dict[str, Any]]:
    """Read which devices are online, within a time limit.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    deadline = time.monotonic() + 0.8 * limit.total_seconds()
    skipped = SkippedRecords()
    cut_short = False

    def in_time(_: Record) -> bool:
        nonlocal cut_short
        cut_short = time.monotonic() > deadline
        return not cut_short

    def parse(record: Record) -> tuple[str, Presence | None]:
        return parse_record(record.key, record.value, profile.id_field)

    known: dict[str, Presence] = {}
    records = takewhile(in_time, read_topic(kafka, profile.topics.status))
    for device, presence in own_records(records, parse, skipped):
        if presence is None:
            known.pop(device, None)
        else:
            known[device] = presence
    offline = [item for item in known.values() if item.state is PresenceState.OFFLINE]
    return {
        "devices": {
            "online": len(known) - len(offline),
            "offline": [
                {"device": item.device, "since": rfc3339(item.since)}
                for item in sorted(offline, key=lambda item: (item.since, item.device))
            ],
            "complete": not cut_short,
        },
        "kafka": {"skipped": skipped.by_topic()},
    }
