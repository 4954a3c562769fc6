"""Creates the Kafka topics of a profile and updates their configuration to match the settings."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

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

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    MissingResourceError,
    TransientError,
)
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.kafka import Kafka, error_of, kafka_errors
from headrace.storage.kafka_topic_configs import misfits, topic_configs

__all__ = ["provision_topics"]

_CALL_SECONDS = 30.0
_LEADER_SECONDS = 30.0
#: Kafka's refusals of users who may not administer it: by ACLs, or by a provider's rules.
_MAY_NOT = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
    }
)


def provision_topics(kafka: Kafka, profile: Profile, settings: Settings) -> dict[str, str]:
    """Create missing topics and update the configuration of the others.

    New topics can be read and written when this returns. Topics that an administrator has
    made are accepted if they fit, even if the user may change nothing.

    Returns
    -------
    dict
        ``made`` or ``there``, by topic.

    Raises
    ------
    ConfigurationError
        If a topic has another number of partitions. The partition of a key, and so the
        order of its records, depends on that number. Also if its configuration does not fit
        and may not be changed.
    AccessDeniedError
        If Kafka refuses the login, its certificate is not trusted, or topics are missing
        and the user may not create them.
    TransientError
        If Kafka does not answer.
    """
    kafka.check_connection()
    admin = kafka.admin()
    configs = topic_configs(profile, settings)
    with kafka_errors():
        present = admin.list_topics(timeout=_CALL_SECONDS).topics
    done = dict.fromkeys(_create(admin, configs, present, settings), "made")
    _wait_for_leaders(admin, list(done), settings.kafka_partitions)
    for name in configs:
        if name in done:
            continue
        if name not in present:
            msg = f"topic {name} exists, and Headrace's Kafka user lacks Describe on it"
            raise AccessDeniedError(msg)
        partitions = len(present[name].partitions)
        if partitions != settings.kafka_partitions:
            msg = (
                f"topic {name} has {partitions} partitions, HEADRACE_KAFKA_PARTITIONS says "
                f"{settings.kafka_partitions}. Set it to {partitions}"
            )
            raise ConfigurationError(msg)
        done[name] = "there"
    there = {name: configs[name] for name, what in done.items() if what == "there"}
    done |= dict.fromkeys(_align(admin, there), "there, made by an administrator")
    return done


def _create(
    admin: AdminClient,
    configs: Mapping[str, Mapping[str, str]],
    present: Container[str],
    settings: Settings,
) -> list[str]:
    """Create the topics that are not present; return those that were created."""
    missing = [
        NewTopic(
            name,
            num_partitions=settings.kafka_partitions,
            replication_factor=settings.kafka_replication,
            config=dict(config),
        )
        for name, config in configs.items()
        if name not in present
    ]
    if not missing:
        return []
    made, denied = [], []
    for name, future in admin.create_topics(missing, request_timeout=_CALL_SECONDS).items():
        try:
            future.result()
            made.append(name)
        except KafkaException as exc:
            code = exc.args[0].code()
            if code in _MAY_NOT:
                denied.append(name)
            elif code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise error_of(exc.args[0]) from exc
    if denied:
        msg = (
            f"Headrace's Kafka user may not create topics {', '.join(denied)}. Grant it Create, "
            "or have an administrator create them: `headrace provision --check` prints the commands"
        )
        raise AccessDeniedError(msg)
    return made


@retry(
    # Kafka reports a new topic before each broker knows its partitions.
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


def _align(admin: AdminClient, configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Update the configuration of topics; return those that fit and may not be changed."""
    if not configs:
        return []
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
    kept = []
    for resource, future in admin.incremental_alter_configs(resources).items():
        try:
            future.result()
        except KafkaException as exc:
            if exc.args[0].code() not in _MAY_NOT:
                raise error_of(exc.args[0]) from exc
            _require_fit(admin, resource.name, configs[resource.name])
            kept.append(resource.name)
    return kept


def _require_fit(admin: AdminClient, name: str, wanted: Mapping[str, str]) -> None:
    wrong = misfits(admin, name, wanted)
    if wrong:
        said = ", ".join(f"{key}={is_} instead of {want}" for key, (is_, want) in wrong.items())
        msg = (
            f"topic {name} has {said}, and Headrace's Kafka user may not change it. Have an "
            "administrator do so: `headrace provision --check` prints the commands"
        )
        raise ConfigurationError(msg)
