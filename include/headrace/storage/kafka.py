"""Kafka: clients with the settings that the guarantees rest on, and errors of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from headrace.errors import (
    AccessDeniedError,
    HeadraceError,
    MissingResourceError,
    RefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from headrace.settings import KafkaProtocol, Settings

__all__ = ["Headers", "Kafka", "Record", "error_of", "headers_of", "kafka_errors"]

#: Headers of a record that is produced.
Headers: TypeAlias = list[tuple[str, str | bytes | None]]

_DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - how the library names its own codes
        KafkaError._SSL,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_MISSING = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
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
    text = f"Kafka: {error.name()}: {error.str()}"
    code = error.code()
    if code in _REFUSED:
        return RefusedError(text)
    if code in _DENIED:
        return AccessDeniedError(text)
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
        """Reach the Kafka that the settings name."""
        config: dict[str, Any] = {
            "bootstrap.servers": settings.kafka_bootstrap,
            "security.protocol": settings.kafka_protocol.value,
        }
        if settings.kafka_protocol in (KafkaProtocol.SASL_PLAINTEXT, KafkaProtocol.SASL_SSL):
            config["sasl.mechanism"] = settings.kafka_sasl_mechanism
            config["sasl.username"] = settings.kafka_username or ""
            if settings.kafka_password is not None:
                config["sasl.password"] = settings.kafka_password.get_secret_value()
        if settings.kafka_ca_file is not None:
            config["ssl.ca.location"] = str(settings.kafka_ca_file)
        return cls(config)

    def producer(self, **overrides: Any) -> Producer:
        """Make a producer that loses nothing and writes nothing twice.

        Idempotent, ``acks=all``, and Java's partitioner, so that every client agrees on
        the partition of a key.
        """
        return Producer(
            {
                **self._common(),
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                # A broker that hangs is given up on after this long, and asked again.
                "socket.timeout.ms": 10_000,
                **_dotted(overrides),
            }
        )

    def consumer(self, group: str, **overrides: Any) -> Consumer:
        """Make a consumer that commits only what it is told to."""
        return Consumer(
            {
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
        )

    def admin(self) -> AdminClient:
        """Make a client for topics and groups."""
        return AdminClient(self._common())

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
    """Librdkafka's names have dots where Python's have underscores."""
    return {name.replace("_", "."): value for name, value in overrides.items()}
