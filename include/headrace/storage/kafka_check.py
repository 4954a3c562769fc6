"""Checks a profile's Kafka topics without changing them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from headrace.errors import AccessDeniedError, MissingResourceError
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.findings import Finding
from headrace.storage.kafka import Kafka, error_of
from headrace.storage.kafka_topic_configs import misfits, topic_configs

__all__ = ["check_topics", "topic_findings"]

_CALL_SECONDS = 30.0
#: Rights on a topic that Kafka's description of it includes.
_OPERATIONS = (AclOperation.READ, AclOperation.WRITE)


def check_topics(kafka: Kafka, profile: Profile, settings: Settings) -> list[Finding]:
    """Compare every topic with the requirements.

    Raises
    ------
    AccessDeniedError
        If Kafka refuses the login, or its certificate is not trusted.
    TransientError
        If Kafka does not answer.
    """
    kafka.check_connection()
    return list(topic_findings(kafka.admin(), topic_configs(profile, settings), settings))


def topic_findings(
    admin: AdminClient, configs: Mapping[str, Mapping[str, str]], settings: Settings
) -> Iterator[Finding]:
    """Yield one finding for each fitting topic, otherwise one for each problem."""
    asked = admin.describe_topics(
        TopicCollection(list(configs)),
        include_authorized_operations=True,
        request_timeout=_CALL_SECONDS,
    )
    for name, future in asked.items():
        what = f"topic {name}"
        try:
            description = future.result()
        except KafkaException as exc:
            problem = error_of(exc.args[0], f"Describe on {what}")
            if isinstance(problem, MissingResourceError):
                yield Finding(what, "missing", _create(name, configs[name], settings))
            elif isinstance(problem, AccessDeniedError):
                # Kafka does not report which of the two it is.
                step = _create(name, configs[name], settings) + "\n" + _acl("Read", name, settings)
                yield Finding(what, "missing, or the user lacks Describe", step)
            else:
                raise problem from exc
            continue
        found = [
            *_shape(what, description, settings),
            *_rights(what, description, settings),
            *_configuration(admin, name, configs[name], settings),
        ]
        yield from found or [Finding(what)]


def _shape(what: str, description: Any, settings: Settings) -> Iterator[Finding]:
    partitions = len(description.partitions)
    if partitions != settings.kafka_partitions:
        yield Finding(
            what,
            f"{partitions} partitions instead of {settings.kafka_partitions}",
            f"set HEADRACE_KAFKA_PARTITIONS={partitions}",
        )
    replicas = min(len(partition.replicas) for partition in description.partitions)
    if replicas < settings.kafka_replication:
        yield Finding(
            what,
            f"{replicas} replicas instead of {settings.kafka_replication}",
            f"kafka-reassign-partitions.sh, or set HEADRACE_KAFKA_REPLICATION={replicas}",
        )


def _rights(what: str, description: Any, settings: Settings) -> Iterator[Finding]:
    allowed = description.authorized_operations
    for operation in _OPERATIONS if allowed else ():
        if operation not in allowed:
            name = operation.name.capitalize()
            yield Finding(what, f"the user lacks {name}", _acl(name, description.name, settings))


def _configuration(
    admin: AdminClient, name: str, wanted: Mapping[str, str], settings: Settings
) -> Iterator[Finding]:
    what = f"topic {name}"
    try:
        wrong = misfits(admin, name, wanted)
    except AccessDeniedError:
        step = _acl("DescribeConfigs", name, settings)
        yield Finding(what, "its configuration can't be read", step)
        return
    if wrong:
        said = ", ".join(f"{key}={is_} instead of {want}" for key, (is_, want) in wrong.items())
        entries = ",".join(f"{key}={want}" for key, (_, want) in wrong.items())
        yield Finding(
            what,
            said,
            _command(
                "kafka-configs.sh",
                settings,
                *("--alter", "--entity-type", "topics", "--entity-name", name),
                *("--add-config", entries),
            ),
        )


def _create(name: str, config: Mapping[str, str], settings: Settings) -> str:
    entries = [part for key, value in config.items() for part in ("--config", f"{key}={value}")]
    return _command(
        "kafka-topics.sh",
        settings,
        *("--create", "--topic", name),
        *("--partitions", str(settings.kafka_partitions)),
        *("--replication-factor", str(settings.kafka_replication)),
        *entries,
    )


def _acl(operation: str, topic: str, settings: Settings) -> str:
    # The name of a user with a client certificate depends on the broker's rules.
    user = f"User:{settings.kafka_username or 'NAME'}"
    return _command(
        "kafka-acls.sh",
        settings,
        *("--add", "--allow-principal", user),
        *("--operation", operation, "--topic", topic),
    )


def _command(tool: str, settings: Settings, *arguments: str) -> str:
    given: Iterable[str] = (tool, "--bootstrap-server", settings.kafka_bootstrap, *arguments)
    return shlex.join(given)
