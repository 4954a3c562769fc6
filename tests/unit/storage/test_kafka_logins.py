"""Names that can't be a consumer's login, and errors of Kafka that a person must fix."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclBinding, ResourcePatternType, ResourceType

from headrace.errors import ConfigurationError, ServerUnavailableError
from headrace.profile import Profile, load_profile
from headrace.settings import load_settings
from headrace.storage.kafka_logins import new_consumers, remove_consumers


@pytest.fixture
def profile() -> Profile:
    return load_profile(load_settings(Path(os.devnull)).profile)


class Refusing:
    """A Kafka that answers every request about rules or logins with the same result."""

    def __init__(self, code: int | None = None) -> None:
        self._code = code
        self.rules: list[AclBinding] = []
        self.changed: list[Any] = []

    def check_connection(self) -> None:
        """Do nothing: the cluster is available."""

    def admin(self) -> Refusing:
        return self

    def create_acls(self, rules: list[AclBinding], **_: Any) -> dict[str, Future[None]]:
        self.rules += rules
        return self._answer("rule")

    def delete_acls(self, *_: Any, **__: Any) -> dict[str, Future[None]]:
        return self._answer("rule")

    def alter_user_scram_credentials(self, changes: list[Any], **_: Any) -> dict[str, Future[None]]:
        self.changed += changes
        return self._answer("dashboard")

    def _answer(self, asked: str) -> dict[str, Future[None]]:
        future: Future[None] = Future()
        if self._code is None:
            future.set_result(None)
        else:
            future.set_exception(KafkaException(KafkaError(self._code)))
        return {asked: future}


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a.b", "a:b", "*", "User:x", "ANONYMOUS", "anonymous", "x" * 101, "caf\u00e9"],
)
def test_a_name_that_kafka_takes_for_something_else_is_refused(name: str, profile: Profile) -> None:
    kafka: Any = Refusing()
    with pytest.raises(ConfigurationError, match="can't be a consumer's login"):
        new_consumers(kafka, profile, ["good", name])
    assert not kafka.changed


def test_a_login_can_not_have_the_name_of_the_sinks_group(profile: Profile) -> None:
    kafka: Any = Refusing()
    with pytest.raises(ConfigurationError, match="consumer group of the sinks"):
        new_consumers(kafka, profile, [profile.sink_group])


def test_a_login_can_read_the_published_topics(profile: Profile) -> None:
    kafka: Any = Refusing()
    made = new_consumers(kafka, profile, ["dashboard"])
    assert len(made["dashboard"]) >= 24
    rules = {(rule.restype, rule.name, rule.resource_pattern_type) for rule in kafka.rules}
    literal, prefixed = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
    assert rules == {
        (ResourceType.TOPIC, profile.topics.downsampled, literal),
        (ResourceType.TOPIC, profile.topics.alarms, literal),
        (ResourceType.GROUP, "dashboard", literal),
        (ResourceType.GROUP, "dashboard.", prefixed),
    }


def test_no_login_is_created_if_kafka_checks_no_rules(profile: Profile) -> None:
    kafka: Any = Refusing(KafkaError.SECURITY_DISABLED)
    with pytest.raises(ConfigurationError, match="Set HEADRACE_KAFKA_LISTEN"):
        new_consumers(kafka, profile, ["dashboard"])
    assert not kafka.changed


def test_removing_an_unknown_consumer_login_is_refused(profile: Profile) -> None:
    class NotThere(Refusing):
        """A Kafka without the login."""

        def delete_acls(self, *_: Any, **__: Any) -> dict[str, Future[None]]:
            return {}

    kafka: Any = NotThere(KafkaError.RESOURCE_NOT_FOUND)
    with pytest.raises(ConfigurationError, match="dashboard has no login"):
        remove_consumers(kafka, profile, ["dashboard"])


def test_other_answers_keep_their_kind(profile: Profile) -> None:
    kafka: Any = Refusing(KafkaError.COORDINATOR_NOT_AVAILABLE)
    with pytest.raises(ServerUnavailableError):
        new_consumers(kafka, profile, ["dashboard"])
