"""Logins of consumers on other machines at the bundled Kafka.

A login may only read the published rows and alarms. Kafka stores the logins and the rules.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from headrace.errors import ConfigurationError
from headrace.profile import Profile
from headrace.storage.kafka import Kafka, error_of

__all__ = ["new_consumers", "remove_consumers"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
#: Kafka's name for clients without a login, which have all rights.
_EVERYTHING = "anonymous"
_ITERATIONS = 8192
_CALL_SECONDS = 30.0
_NO_RULES = (
    "Kafka checks no logins. Set HEADRACE_KAFKA_LISTEN in .env, restart Kafka, and run this "
    "command again"
)


def new_consumers(kafka: Kafka, profile: Profile, names: Iterable[str]) -> Mapping[str, str]:
    """Create logins that may read the published topics; return their passwords.

    An existing login gets a new password. Its consumer groups are its name and names that
    begin with it and a dot, because a consumer must not join the sinks' group.

    Raises
    ------
    ConfigurationError
        If a name can't be a login, or if Kafka checks no logins.
    AccessDeniedError, TransientError
        If Kafka refuses or does not answer.
    """
    made = {_checked(name, profile): secrets.token_urlsafe(18) for name in names}
    kafka.check_connection()
    admin = kafka.admin()
    # Create the rules first, because Kafka refuses them if it would not check them.
    rules = [rule for name in made for rule in _rules(name, profile)]
    _wait(admin.create_acls(rules, request_timeout=_CALL_SECONDS))
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    _wait(
        admin.alter_user_scram_credentials(
            [
                UserScramCredentialUpsertion(name, info, password.encode())
                for name, password in made.items()
            ],
            request_timeout=_CALL_SECONDS,
        )
    )
    return made


def remove_consumers(kafka: Kafka, profile: Profile, names: Iterable[str]) -> None:
    """Remove logins and their rules. Connected consumers lose access at once.

    Raises
    ------
    ConfigurationError
        If a name has no login, or if Kafka checks no logins.
    AccessDeniedError, TransientError
        If Kafka refuses or does not answer.
    """
    removed = [_checked(name, profile) for name in names]
    kafka.check_connection()
    admin = kafka.admin()
    _wait(admin.delete_acls([_all_rules(name) for name in removed], request_timeout=_CALL_SECONDS))
    _wait(
        admin.alter_user_scram_credentials(
            [UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512) for name in removed],
            request_timeout=_CALL_SECONDS,
        )
    )


def _checked(name: str, profile: Profile) -> str:
    if not _NAME.fullmatch(name) or name.lower() == _EVERYTHING:
        msg = (
            f"{name!r} can't be a consumer's login: write 1 to 100 letters, digits, hyphens and "
            f"underscores, and not {_EVERYTHING}, Kafka's name for clients without a login"
        )
        raise ConfigurationError(msg)
    if profile.sink_group == name:
        msg = f"{name!r} can't be a consumer's login: it is the consumer group of the sinks"
        raise ConfigurationError(msg)
    return name


def _rules(name: str, profile: Profile) -> list[AclBinding]:
    topics = (profile.topics.downsampled, profile.topics.alarms)
    literal, prefixed = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
    return [
        *(_rule(name, ResourceType.TOPIC, topic, literal) for topic in topics),
        _rule(name, ResourceType.GROUP, name, literal),
        _rule(name, ResourceType.GROUP, f"{name}.", prefixed),
    ]


def _rule(name: str, kind: ResourceType, resource: str, pattern: ResourcePatternType) -> AclBinding:
    return AclBinding(
        kind,
        resource,
        pattern,
        f"User:{name}",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )


def _all_rules(name: str) -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]
        ResourcePatternType.ANY,
        f"User:{name}",
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def _wait(futures: Mapping[Any, Future[Any]]) -> None:
    """Wait for answers; raise errors with the next step."""
    for asked, future in futures.items():
        try:
            future.result()
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() == KafkaError.SECURITY_DISABLED:
                raise ConfigurationError(_NO_RULES) from exc
            if error.code() == KafkaError.RESOURCE_NOT_FOUND:
                msg = f"{asked} has no login at Kafka"
                raise ConfigurationError(msg) from exc
            raise error_of(error) from exc
