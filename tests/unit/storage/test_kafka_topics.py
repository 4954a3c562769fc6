"""How topics are created and configured."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headrace.profile import Profile
from headrace.settings import load_settings
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_topics import provision_topics, topic_configs


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
def test_new_topics_are_waited_for_until_their_leaders_answer(
    profile: Profile, not_yet: int
) -> None:
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
