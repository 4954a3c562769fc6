"""Kafka: clients with the settings that the guarantees rest on, and errors of ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    HeadraceError,
    MissingResourceError,
    PermanentError,
    RefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
    TransientError,
)
from headrace.settings import KafkaProtocol, Settings

__all__ = ["Headers", "Kafka", "Record", "error_of", "headers_of", "kafka_errors"]

#: Headers of a record that is produced.
Headers: TypeAlias = list[tuple[str, str | bytes | None]]
#: Told the outcome of a commit, inside the consumer's ``poll``.
OnCommit: TypeAlias = Callable[[KafkaError | None, list[TopicPartition]], None]

_LOGIN = (
    "Are HEADRACE_KAFKA_USERNAME, HEADRACE_KAFKA_PASSWORD and HEADRACE_KAFKA_SASL_MECHANISM right?"
)
_CERTIFICATE = (
    "Is HEADRACE_KAFKA_CA_FILE the CA of that broker, the broker's name in "
    "HEADRACE_KAFKA_BOOTSTRAP the one in its certificate, and HEADRACE_KAFKA_PROTOCOL right?"
)
_RIGHTS = "The user in HEADRACE_KAFKA_USERNAME lacks the right"
#: Refusals that are for a person to mend, and the settings to look at.
_DENIED = {
    KafkaError._AUTHENTICATION: _LOGIN,  # noqa: SLF001 - how the library names its own codes
    KafkaError._SSL: _CERTIFICATE,  # noqa: SLF001
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _RIGHTS,
}
_MISSING = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_ALL_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
_SPENT = re.compile(r" \(after \d+ms in state .*\)$")
#: So often a greeting looks whether it was refused.
_GREETING_SECONDS = 0.5
#: Refusals that are the record's own fault: the same record is refused for ever.
_REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.RECORD_LIST_TOO_LARGE,
        # Another record of the same batch is at fault.
        KafkaError._INVALID_DIFFERENT_RECORD,  # noqa: SLF001
    }
)
_TIMED_OUT = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
    }
)


def error_of(error: KafkaError) -> HeadraceError:
    """Our error for what librdkafka or a broker reports."""
    # How long the attempt took would make a new problem of every attempt.
    text = f"Kafka: {error.name()}: {_SPENT.sub('', error.str())}"
    code = error.code()
    if code in _REFUSED:
        return RefusedError(text)
    if code in _DENIED:
        return AccessDeniedError(f"{text}. {_DENIED[code]}")
    if code in _MISSING:
        return MissingResourceError(f"{text}. `headrace provision` makes topics")
    if code in _TIMED_OUT:
        return ServerTimeoutError(text)
    return ServerUnavailableError(text)


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Turn what confluent-kafka raises into errors of ours."""
    try:
        yield
    except KafkaException as exc:
        raise error_of(exc.args[0]) from exc


class Record(NamedTuple):
    """A record that was read from a topic.

    Parameters
    ----------
    topic, partition, offset
        Where it stands.
    key, value
        What it holds; empty for what is missing.
    timestamp_ms
        Its timestamp, in milliseconds since the epoch.
    headers
        By name; a header that stands twice counts as its last.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp_ms: int
    headers: Mapping[str, bytes]

    @classmethod
    def of(cls, message: Message) -> Record:
        """Read a message of confluent-kafka that is no error."""
        return cls(
            topic=message.topic() or "",
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            key=message.key() or b"",
            value=message.value() or b"",
            timestamp_ms=message.timestamp()[1],
            headers=headers_of(message),
        )


def headers_of(message: Message) -> dict[str, bytes]:
    """Headers of a message by name."""
    headers = message.headers() or []
    items = headers.items() if isinstance(headers, dict) else headers
    return {
        name: value.encode() if isinstance(value, str) else value or b"" for name, value in items
    }


@dataclass(frozen=True)
class Kafka:
    """Makes clients of one Kafka cluster.

    Clients do not survive a fork: make them in the process, and the task, that uses them.

    Parameters
    ----------
    config
        librdkafka settings that every client shares, such as ``bootstrap.servers``.
        They may hold a password, so they are not part of the representation.
    """

    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Kafka:
        """Reach the Kafka that the settings name.

        Raises
        ------
        ConfigurationError
            If Kafka is to ask for a login and there is none.
        """
        config: dict[str, Any] = {
            "bootstrap.servers": settings.kafka_bootstrap,
            "security.protocol": settings.kafka_protocol.value,
        }
        if settings.kafka_protocol in (KafkaProtocol.SASL_PLAINTEXT, KafkaProtocol.SASL_SSL):
            if settings.kafka_username is None or settings.kafka_password is None:
                msg = (
                    f"HEADRACE_KAFKA_PROTOCOL is {settings.kafka_protocol}, so "
                    "HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD have to be set"
                )
                raise ConfigurationError(msg)
            config["sasl.mechanism"] = settings.kafka_sasl_mechanism
            config["sasl.username"] = settings.kafka_username
            config["sasl.password"] = settings.kafka_password.get_secret_value()
        if settings.kafka_ca_file is not None:
            config["ssl.ca.location"] = str(settings.kafka_ca_file)
        return cls(config)

    def producer(self, **overrides: Any) -> Producer:
        """Make a producer that loses nothing and writes nothing twice.

        Idempotent, ``acks=all``, and Java's partitioner, so that every client agrees on
        the partition of a key.
        """
        config = {
            **self._common(),
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            # A broker that hangs is given up on after this long, and asked again.
            "socket.timeout.ms": 10_000,
            **_dotted(overrides),
        }
        with _settings_errors():
            return Producer(config)

    def consumer(self, group: str, **overrides: Any) -> Consumer:
        """Make a consumer that commits only what it is told to."""
        config = {
            **self._common(),
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            # The end of a partition is an event, so that offsets which hold no
            # readings (the markers of transactions) can be committed, too.
            "enable.partition.eof": True,
            **_dotted(overrides),
        }
        with _settings_errors():
            return Consumer(config)

    def admin(self, **overrides: Any) -> AdminClient:
        """Make a client for topics and groups."""
        with _settings_errors():
            return AdminClient({**self._common(), **_dotted(overrides)})

    def greet(self, timeout: timedelta = timedelta(seconds=5)) -> None:
        """Find out whether Kafka answers, and if not, why.

        librdkafka tells of a refused login or certificate only in passing, to a callback.
        A call that waits for an answer learns no more than that none came.

        Raises
        ------
        AccessDeniedError
            If Kafka refuses the login, or its certificate is not to be trusted.
        TransientError
            If it does not answer in time.
        """
        heard: list[KafkaError] = []
        client = self.admin(error_cb=heard.append)
        deadline = time.monotonic() + timeout.total_seconds()
        while True:
            try:
                with kafka_errors():
                    client.list_topics(timeout=_GREETING_SECONDS)
            except TransientError:
                client.poll(0)
                errors = [error_of(error) for error in heard]
                denied = [error for error in errors if isinstance(error, PermanentError)]
                if denied:
                    raise denied[0] from None
                if time.monotonic() > deadline:
                    telling = [error for error in heard if error.code() != _ALL_DOWN]
                    said = f": {_SPENT.sub('', telling[0].str())}" if telling else ""
                    msg = (
                        f"Kafka at {self.config['bootstrap.servers']} does not answer{said}. Are "
                        "HEADRACE_KAFKA_BOOTSTRAP and HEADRACE_KAFKA_PROTOCOL right?"
                    )
                    raise ServerUnavailableError(msg) from None
            else:
                return

    def _common(self) -> dict[str, Any]:
        return {
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,
            # While a broker is away librdkafka logs every attempt, twenty a second. What
            # matters comes as an error, and is logged once.
            "log_level": 2,
            **self.config,
        }


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Librdkafka's names have dots where Python's have underscores, those of callbacks aside."""
    return {
        name if callable(value) else name.replace("_", "."): value
        for name, value in overrides.items()
    }


@contextmanager
def _settings_errors() -> Iterator[None]:
    """Name the settings when librdkafka does not take them."""
    try:
        yield
    except KafkaException as exc:
        msg = f"the HEADRACE_KAFKA_ settings do not fit: {exc.args[0].str()}"
        raise ConfigurationError(msg) from exc
