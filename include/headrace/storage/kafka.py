"""Kafka clients with the settings that the guarantees need."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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
)
from confluent_kafka.admin import AdminClient

from headrace.errors import (
    ConfigurationError,
    PermanentError,
    ServerUnavailableError,
    TransientError,
)
from headrace.settings import Settings
from headrace.storage.kafka_errors import FatalErrors, error_of, kafka_errors, reason_of
from headrace.storage.kafka_probe import unanswered

__all__ = [
    "FatalErrors",
    "Headers",
    "Kafka",
    "Record",
    "error_of",
    "headers_of",
    "kafka_errors",
]

#: Headers of a record to produce.
Headers: TypeAlias = list[tuple[str, str | bytes | None]]

_ALL_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - how the library names its own codes
_SSL = KafkaError._SSL  # noqa: SLF001
#: Seconds between two checks of `Kafka.check_connection` for a refused login.
_LOOK_SECONDS = 0.5


class Record(NamedTuple):
    """A record that was read from a topic.

    Parameters
    ----------
    topic, partition, offset
        Its position.
    key, value
        Its content; empty if missing.
    timestamp_ms
        Its timestamp, in milliseconds since the epoch: the time of arrival on the topics of
        raw readings and dead letters, otherwise the time that the producer set.
    headers
        Headers by name; of repeated headers, the first.
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
        """Convert a message of confluent-kafka with a record."""
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
    """Return the headers of a message by name."""
    headers = message.headers() or []
    items = list(headers.items()) if isinstance(headers, dict) else headers
    return {
        name: value.encode() if isinstance(value, str) else value or b""
        for name, value in reversed(items)
    }


@dataclass(frozen=True)
class Kafka:
    """Creates clients of one Kafka cluster.

    Clients do not survive a fork: create them in the process that uses them.

    Parameters
    ----------
    config
        librdkafka settings that all clients share, such as ``bootstrap.servers``.
        They can contain a password, so ``repr`` leaves them out.
    """

    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Kafka:
        """Create the clients' configuration from the settings."""
        config: dict[str, Any] = {
            "bootstrap.servers": settings.kafka_bootstrap,
            "security.protocol": settings.kafka_protocol.value,
        }
        if settings.kafka_username is not None and settings.kafka_password is not None:
            config["sasl.mechanism"] = settings.kafka_sasl_mechanism.value
            config["sasl.username"] = settings.kafka_username
            config["sasl.password"] = settings.kafka_password.get_secret_value()
        files = {
            "ssl.ca.location": settings.kafka_ca_file,
            "ssl.certificate.location": settings.kafka_cert_file,
            "ssl.key.location": settings.kafka_key_file,
        }
        config |= {name: str(path) for name, path in files.items() if path is not None}
        return cls(config)

    def producer(self, **overrides: Any) -> Producer:
        """Create a producer that neither loses nor duplicates records.

        It is idempotent, waits for all replicas (``acks=all``), and uses Java's partitioner,
        so that all clients agree on the partition of a key.
        """
        config = {
            **self._common(),
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            # After this time without an answer, the request is sent again.
            "socket.timeout.ms": 10_000,
            **_dotted(overrides),
        }
        with _settings_errors():
            return Producer(config)

    def consumer(self, group: str, **overrides: Any) -> Consumer:
        """Create a consumer that commits only explicitly."""
        config = {
            **self._common(),
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            # The end of a partition is an event, so that offsets without readings
            # (transaction markers) can be committed.
            "enable.partition.eof": True,
            **_dotted(overrides),
        }
        with _settings_errors():
            return Consumer(config)

    def admin(self, **overrides: Any) -> AdminClient:
        """Create a client that administers topics and groups."""
        with _settings_errors():
            return AdminClient({**self._common(), **_dotted(overrides)})

    def check_connection(self, timeout: timedelta = timedelta(seconds=5)) -> None:
        """Check that Kafka answers; if it does not, raise the reason.

        librdkafka reports a refused login or certificate only to a callback, while the call times
        out.

        Raises
        ------
        AccessDeniedError
            If Kafka refuses the login, or its certificate is not trusted.
        TransientError
            If it does not answer in time.
        """
        reported: list[KafkaError] = []
        client = self.admin(error_cb=reported.append)
        deadline = time.monotonic() + timeout.total_seconds()
        while True:
            try:
                with kafka_errors():
                    client.list_topics(timeout=_LOOK_SECONDS)
            except TransientError:
                client.poll(0)
                errors = [error_of(error) for error in reported]
                denied = [error for error in errors if isinstance(error, PermanentError)]
                if denied:
                    said_tls = any(error.code() == _SSL for error in reported)
                    raise (said_tls and unanswered(self.config)) or denied[0] from None
                if time.monotonic() > deadline:
                    details = [error for error in reported if error.code() != _ALL_DOWN]
                    said = f": {reason_of(details[0])}" if details else ""
                    msg = (
                        f"Kafka at {self.config['bootstrap.servers']} does not answer{said}. Are "
                        "HEADRACE_KAFKA_BOOTSTRAP and HEADRACE_KAFKA_PROTOCOL right?"
                    )
                    raise unanswered(self.config) or ServerUnavailableError(msg) from None
            else:
                return

    def _common(self) -> dict[str, Any]:
        return {
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,
            # While a broker is unavailable, librdkafka logs twenty attempts per second. We log its
            # reported error once.
            "log_level": 2,
            **self.config,
        }


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace underscores by the dots of librdkafka's names, except in names of callbacks."""
    return {
        name if callable(value) else name.replace("_", "."): value
        for name, value in overrides.items()
    }


@contextmanager
def _settings_errors() -> Iterator[None]:
    """Convert librdkafka's errors about its configuration to errors that name the settings."""
    try:
        yield
    except KafkaException as exc:
        msg = f"librdkafka rejects the HEADRACE_KAFKA_ settings: {exc.args[0].str()}"
        raise ConfigurationError(msg) from exc
