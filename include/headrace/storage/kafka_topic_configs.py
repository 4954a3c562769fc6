"""The required configuration of each Kafka topic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.kafka import error_of

__all__ = ["misfits", "topic_configs"]

_CALL_SECONDS = 30.0
_MAX_RECORD_BYTES = 1_048_588
#: Entries for which a larger value fits, too; -1 means no limit.
_AT_LEAST = frozenset({"retention.ms", "max.message.bytes"})
#: Entries that affect only speed or size.
_TUNING = frozenset({"min.cleanable.dirty.ratio"})


def topic_configs(profile: Profile, settings: Settings) -> dict[str, dict[str, str]]:
    """Return the configuration of every topic, by name.

    Raw readings and dead letters are stamped and kept by time of arrival. Otherwise a device's
    date would decide when Kafka deletes a segment or refuses a record. Published rows and
    alarms are kept longer than raw readings, because computing a window again reads its
    published records.
    """
    raw = str(settings.kafka_retention // timedelta(milliseconds=1))
    published = str((settings.raw_retention + timedelta(days=1)) // timedelta(milliseconds=1))
    deleted = {"cleanup.policy": "delete", "max.message.bytes": str(_MAX_RECORD_BYTES)}
    arrived = {**deleted, "message.timestamp.type": "LogAppendTime", "retention.ms": raw}
    # The publisher's timestamps mark where the records of a window begin.
    dated = {**deleted, "message.timestamp.type": "CreateTime", "retention.ms": published}
    topics = profile.topics
    return {
        topics.raw: arrived,
        topics.dead_letter: arrived,
        topics.status: {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.1",
            # Otherwise Kafka would refuse records of a bridge with a fast clock.
            "message.timestamp.type": "LogAppendTime",
        },
        topics.downsampled: dated,
        topics.alarms: dated,
    }


def misfits(admin: AdminClient, name: str, wanted: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the wrong entries of a topic's configuration: current and required values.

    Raises
    ------
    AccessDeniedError
        If the user may not read the configuration.
    """
    resource = ConfigResource(ResourceType.TOPIC, name)
    (future,) = admin.describe_configs([resource], request_timeout=_CALL_SECONDS).values()
    try:
        present = {key: str(entry.value) for key, entry in future.result().items()}
    except KafkaException as exc:
        raise error_of(exc.args[0], f"DescribeConfigs on topic {name}") from exc
    return {
        key: (present.get(key, "nothing"), value)
        for key, value in wanted.items()
        if not _entry_fits(key, present.get(key, ""), value)
    }


def _entry_fits(key: str, present: str, wanted: str) -> bool:
    if key in _TUNING or present == wanted:
        return True
    if key in _AT_LEAST and present.lstrip("-").isdigit():
        return int(present) == -1 or int(present) >= int(wanted)
    return False
