"""Kafka clients with the settings that the guarantees need, and our errors for theirs."""

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
)
from confluent_kafka.admin import AdminClient

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    FatalError,
    HeadraceError,
    MissingResourceError,
    PermanentError,
    RefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
    TransientError,
)
from headrace.settings import Settings

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

_LOGIN = (
    "Are HEADRACE_KAFKA_USERNAME, HEADRACE_KAFKA_PASSWORD and HEADRACE_KAFKA_SASL_MECHANISM right?"
)
_CERTIFICATE = (
    "Is HEADRACE_KAFKA_CA_FILE the CA of that broker, the broker's name in "
    "HEADRACE_KAFKA_BOOTSTRAP the one in its certificate, and HEADRACE_KAFKA_PROTOCOL right?"
)
_RIGHTS = "The user in HEADRACE_KAFKA_USERNAME lacks the right"
#: Refusals that a person must fix, and the settings to check.
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
#: How often `Kafka.check_connection` looks for a refused login.
_LOOK_SECONDS = 0.5
_FATAL = KafkaError._FATAL  # noqa: SLF001
#: Refusals caused by the record itself: Kafka never accepts this record.
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
    """Return our error for what librdkafka or a broker reports.

    Only the error object that librdkafka hands to ``error_cb`` or raises knows whether
    it is fatal: pass that object, not one made from its code.
    """
    # Without the duration of the attempt, or each attempt would be logged as a new problem.
    text = f"Kafka: {error.name()}: {_SPENT.sub('', error.str())}"
    code = error.code()
    if error.fatal() or code == _FATAL:
        return FatalError(f"{text}. The client is unusable, so the process must restart")
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
    """Convert exceptions of confluent-kafka to errors of ours."""
    try:
        yield
    except KafkaException as exc:
        raise error_of(exc.args[0]) from exc


class FatalErrors:
    """An ``error_cb`` that remembers the first fatal error of a client.

    librdkafka reports a fatal producer error only here: calls that follow fail with
    codes that look transient.

    Parameters
    ----------
    also
        Receives every error as well.
    """

    def __init__(self, also: Callable[[KafkaError], None] | None = None) -> None:
        self._also = also
        self._fatal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Receive an error from librdkafka, inside ``poll`` or ``flush``."""
        if self._fatal is None and isinstance(error_of(error), FatalError):
            self._fatal = error
        if self._also is not None:
            self._also(error)

    def check(self) -> None:
        """Raise if the client is unusable.

        Raises
        ------
        FatalError
            If librdkafka reported a fatal error.
        """
        if self._fatal is not None:
            raise error_of(self._fatal)


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
        """Convert a message of confluent-kafka that holds a record."""
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
        They may hold a password, so ``repr`` leaves them out.
    """

    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Kafka:
        """Use the cluster that the settings name."""
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
            # After this time without an answer the request is sent again.
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

        librdkafka reports a refused login or certificate only to a callback. The call that
        waits for an answer only times out.

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
                    raise denied[0] from None
                if time.monotonic() > deadline:
                    details = [error for error in reported if error.code() != _ALL_DOWN]
                    said = f": {_SPENT.sub('', details[0].str())}" if details else ""
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
            # While a broker is unavailable, librdkafka logs twenty attempts a second. We log
            # the error that it reports, once.
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
    """Name the settings if librdkafka rejects them."""
    try:
        yield
    except KafkaException as exc:
        msg = f"librdkafka rejects the HEADRACE_KAFKA_ settings: {exc.args[0].str()}"
        raise ConfigurationError(msg) from exc
