"""Creation and configuration of topics."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry

from headrace.errors import AccessDeniedError, ConfigurationError
from headrace.profile import Profile
from headrace.settings import load_settings
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_topic_configs import topic_configs
from headrace.storage.kafka_topics import provision_topics


class SlowCluster:
    """A cluster that creates topics at once, whose brokers learn of them later."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers

    def check_connection(self) -> None:
        """It answers."""

    def admin(self) -> AdminClient:
        return cast("AdminClient", self)

    def list_topics(self, **_: Any) -> Any:
        return type("Metadata", (), {"topics": {}})

    def create_topics(self, topics: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {topic.topic: _done(KafkaError.NO_ERROR) for topic in topics}

    def list_offsets(self, asked: dict[Any, Any], **_: Any) -> dict[Any, Future[None]]:
        code = self.answers.pop(0)
        return {place: _done(code) for place in asked}


def _done(code: int) -> Future[None]:
    future: Future[None] = Future()
    if code == KafkaError.NO_ERROR:
        future.set_result(None)
    else:
        future.set_exception(KafkaException(KafkaError(code)))
    return future


@pytest.mark.parametrize(
    "not_yet", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART]
)
def test_provisioning_waits_for_the_leaders_of_new_topics(profile: Profile, not_yet: int) -> None:
    cluster = SlowCluster([not_yet, not_yet, KafkaError.NO_ERROR])
    done = provision_topics(cast("Kafka", cluster), profile, load_settings(Path("none.env")))
    assert set(done.values()) == {"made"}
    assert cluster.answers == []


def test_only_raw_and_dead_letter_topics_are_stamped_by_arrival(profile: Profile) -> None:
    configs = topic_configs(profile, load_settings(Path("none.env")))
    stamped = {name: config.get("message.timestamp.type") for name, config in configs.items()}
    topics = profile.topics
    assert stamped == {
        topics.raw: "LogAppendTime",
        topics.dead_letter: "LogAppendTime",
        topics.status: "LogAppendTime",
        topics.downsampled: "CreateTime",
        topics.alarms: "CreateTime",
    }


class GuardedCluster(SlowCluster):
    """A cluster with all topics, whose user can only read their configuration."""

    def __init__(self, topics: dict[str, dict[str, str]], partitions: int) -> None:
        super().__init__([])
        self.topics, self.partitions = topics, partitions

    def list_topics(self, **_: Any) -> Any:
        topic = type("Topic", (), {"partitions": range(self.partitions)})
        return type("Metadata", (), {"topics": dict.fromkeys(self.topics, topic)})

    def create_topics(self, topics: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {topic.topic: _done(KafkaError.TOPIC_AUTHORIZATION_FAILED) for topic in topics}

    def incremental_alter_configs(self, resources: list[Any]) -> dict[Any, Future[None]]:
        return {item: _done(KafkaError.TOPIC_AUTHORIZATION_FAILED) for item in resources}

    def describe_configs(self, resources: list[Any], **_: Any) -> dict[Any, Future[Any]]:
        found: dict[Any, Future[Any]] = {}
        for resource in resources:
            found[resource] = future = Future()
            entries = self.topics[resource.name]
            future.set_result({key: ConfigEntry(key, value) for key, value in entries.items()})
        return found


def provisioned_by_others(profile: Profile, **changes: str) -> dict[str, str]:
    """Provision with topics of an administrator; the raw topic has changes."""
    settings = load_settings(Path("none.env"))
    topics = topic_configs(profile, settings)
    topics[profile.topics.raw] |= {key.replace("_", "."): text for key, text in changes.items()}
    cluster = GuardedCluster(topics, settings.kafka_partitions)
    return provision_topics(cast("Kafka", cluster), profile, settings)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"retention_ms": "-1"},
        {"retention_ms": "99999999999"},
        {"max_message_bytes": "9999999"},
        {"min_cleanable_dirty_ratio": "0.9"},
    ],
)
def test_fitting_topics_of_an_administrator_are_accepted(
    profile: Profile, changes: dict[str, str]
) -> None:
    done = provisioned_by_others(profile, **changes)
    assert set(done.values()) == {"there, made by an administrator"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retention_ms": "1000"}, "retention.ms=1000 instead of 604800000"),
        (
            {"message_timestamp_type": "CreateTime"},
            "message.timestamp.type=CreateTime instead of LogAppendTime",
        ),
        ({"cleanup_policy": "compact"}, "cleanup.policy=compact instead of delete"),
        ({"max_message_bytes": "1000"}, "max.message.bytes=1000 instead of 1048588"),
    ],
)
def test_wrong_topics_of_an_administrator_are_reported(
    profile: Profile, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"provision --check") as refused:
        provisioned_by_others(profile, **changes)
    assert f"topic {profile.topics.raw} has {said}, and" in str(refused.value)


def test_all_topics_that_can_not_be_created_are_reported(profile: Profile) -> None:
    settings = load_settings(Path("none.env"))
    cluster = GuardedCluster({}, settings.kafka_partitions)
    with pytest.raises(AccessDeniedError) as refused:
        provision_topics(cast("Kafka", cluster), profile, settings)
    assert all(name in str(refused.value) for _, name in profile.topics)
