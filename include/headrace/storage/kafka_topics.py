"""Creates the Kafka topics of a profile and updates their configuration to match the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from headrace.errors import ConfigurationError, MissingResourceError, TransientError
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.kafka import Kafka, kafka_errors

__all__ = ["provision_topics", "topic_configs"]

_CALL_SECONDS = 30.0
_MAX_RECORD_BYTES = 1_048_588
_LEADER_SECONDS = 30.0


def topic_configs(profile: Profile, settings: Settings) -> dict[str, dict[str, str]]:
    """Return the configuration of every topic, by name.

    Raw readings and dead letters are stamped and kept by time of arrival. Otherwise the
    date that a device sets would decide when Kafka deletes a segment, or refuses a record.
    Published rows and alarms are kept longer than raw readings: recomputing a window
    reads from there what was published of it.
    """
    raw = str(settings.kafka_retention // timedelta(milliseconds=1))
    published = str((settings.raw_retention + timedelta(days=1)) // timedelta(milliseconds=1))
    deleted = {"cleanup.policy": "delete", "max.message.bytes": str(_MAX_RECORD_BYTES)}
    arrived = {**deleted, "message.timestamp.type": "LogAppendTime", "retention.ms": raw}
    # The publisher's stamps say where the records of a window begin.
    dated = {**deleted, "message.timestamp.type": "CreateTime", "retention.ms": published}
    topics = profile.topics
    return {
        topics.raw: arrived,
        topics.dead_letter: arrived,
        topics.status: {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.1",
            # A bridge whose clock is far ahead would have its records refused.
            "message.timestamp.type": "LogAppendTime",
        },
        topics.downsampled: dated,
        topics.alarms: dated,
    }


def provision_topics(kafka: Kafka, profile: Profile, settings: Settings) -> dict[str, str]:
    """Create missing topics and update the configuration of the others.

    New topics can be read and written when this returns.

    Returns
    -------
    dict
        ``made`` or ``there``, by topic.

    Raises
    ------
    ConfigurationError
        If a topic has another number of partitions. The partition of a key, and so the
        order of its records, depends on that number.
    AccessDeniedError
        If Kafka refuses the login, or its certificate is not trusted.
    TransientError
        If Kafka does not answer.
    """
    kafka.check_connection()
    admin = kafka.admin()
    configs = topic_configs(profile, settings)
    with kafka_errors():
        present = admin.list_topics(timeout=_CALL_SECONDS).topics
    done = {}
    missing = [
        NewTopic(
            name,
            num_partitions=settings.kafka_partitions,
            replication_factor=settings.kafka_replication,
            config=config,
        )
        for name, config in configs.items()
        if name not in present
    ]
    if missing:
        for name, future in admin.create_topics(missing, request_timeout=_CALL_SECONDS).items():
            try:
                with kafka_errors():
                    future.result()
                done[name] = "made"
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        _wait_for_leaders(admin, list(done), settings.kafka_partitions)
    for name in configs:
        if name in done:
            continue
        partitions = len(present[name].partitions)
        if partitions != settings.kafka_partitions:
            msg = (
                f"topic {name} has {partitions} partitions, HEADRACE_KAFKA_PARTITIONS says "
                f"{settings.kafka_partitions}. Set it to {partitions}"
            )
            raise ConfigurationError(msg)
        done[name] = "there"
    _align(admin, {name: configs[name] for name, what in done.items() if what == "there"})
    return done


@retry(
    # Kafka reports a new topic before each broker knows which partitions it leads.
    retry=retry_if_exception_type((TransientError, MissingResourceError)),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(_LEADER_SECONDS),
    reraise=True,
)
def _wait_for_leaders(admin: AdminClient, topics: Sequence[str], partitions: int) -> None:
    asked = {
        TopicPartition(topic, partition): OffsetSpec.latest()
        for topic in topics
        for partition in range(partitions)
    }
    if not asked:
        return
    for future in admin.list_offsets(asked, request_timeout=_CALL_SECONDS).values():
        with kafka_errors():
            future.result()


def _align(admin: AdminClient, configs: Mapping[str, Mapping[str, str]]) -> None:
    if not configs:
        return
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                for key, value in config.items()
            ],
        )
        for name, config in configs.items()
    ]
    for future in admin.incremental_alter_configs(resources).values():
        with kafka_errors():
            future.result()
