"""The Kafka topics of a profile: made, and kept as the settings say."""

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
    """Configuration of every topic, by its name.

    Published rows and alarms are kept longer than raw readings: what was published of a
    window is read from there when the window is computed again.
    """
    raw = str(settings.kafka_retention // timedelta(milliseconds=1))
    published = str((settings.raw_retention + timedelta(days=1)) // timedelta(milliseconds=1))
    deleted = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(_MAX_RECORD_BYTES),
        # Whoever produces says what time a record is of, and not the broker's clock.
        "message.timestamp.type": "CreateTime",
    }
    topics = profile.topics
    return {
        topics.raw: {**deleted, "retention.ms": raw},
        topics.dead_letter: {**deleted, "retention.ms": raw},
        topics.status: {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"},
        topics.downsampled: {**deleted, "retention.ms": published},
        topics.alarms: {**deleted, "retention.ms": published},
    }


def provision_topics(kafka: Kafka, profile: Profile, settings: Settings) -> dict[str, str]:
    """Make the topics that are missing, and bring the others in line.

    A topic that was made can be read and written when this returns.

    Returns
    -------
    dict
        What was done, by topic.

    Raises
    ------
    ConfigurationError
        If a topic is there with another number of partitions: a key's partition, and so
        the order of its records, depends on it.
    AccessDeniedError
        If Kafka refuses the login, or its certificate is not to be trusted.
    TransientError
        If Kafka can't be reached.
    """
    kafka.greet()
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
    # Kafka has told of a new topic before each of its brokers knows what it leads.
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
