"""Converts errors of Kafka and librdkafka to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from headrace.errors import (
    AccessDeniedError,
    FatalError,
    HeadraceError,
    MissingResourceError,
    RefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
)

__all__ = ["FatalErrors", "consumer_acl", "error_of", "kafka_errors", "reason_of", "refusal_of"]

_LOGIN = (
    "Are HEADRACE_KAFKA_USERNAME, HEADRACE_KAFKA_PASSWORD and HEADRACE_KAFKA_SASL_MECHANISM right?"
)
_CERTIFICATE = (
    "Is HEADRACE_KAFKA_CA_FILE the CA of that broker, the broker's name in "
    "HEADRACE_KAFKA_BOOTSTRAP the one in its certificate, and HEADRACE_KAFKA_PROTOCOL right?"
)
_LOGIN_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - how the library names its own codes
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
#: Missing rights with the terms of Kafka's ACLs, if the caller does not know the resource.
_RIGHTS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "a right on a topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "Read on a consumer group",
    # Of a producer; before Kafka 2.8 it was IdempotentWrite on the cluster.
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Write on the topics",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Write on a transactional id",
}
#: Errors that a person must fix.
_DENIED = frozenset({KafkaError._SSL, *_LOGIN_REFUSED, *_RIGHTS})  # noqa: SLF001
_MISSING = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_SPENT = re.compile(r" \(after \d+ms in state .*\)$")
_FATAL = KafkaError._FATAL  # noqa: SLF001
#: Errors caused by the record, which Kafka never accepts.
_REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.RECORD_LIST_TOO_LARGE,
        # Another record of the same batch is the cause.
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


def error_of(error: KafkaError, acl: str = "") -> HeadraceError:
    """Return our error for an error of librdkafka or of a broker.

    Only the error object that librdkafka passes to ``error_cb`` or raises shows whether it is
    fatal. Pass that object, not one created from its code.

    Parameters
    ----------
    error
        The reported error.
    acl
        The right that the call needs, such as ``Write on topic x``, which Kafka does not report.
    """
    text = f"Kafka: {error.name()}: {reason_of(error)}"
    code = error.code()
    denied = refusal_of(error, acl)
    if error.fatal() or code == _FATAL:
        return FatalError(f"{denied or text}. The client is unusable, so the process must restart")
    if code in _REFUSED:
        return RefusedError(text)
    if denied is not None:
        return denied
    if code in _MISSING:
        return MissingResourceError(f"{text}. `headrace provision` creates topics")
    if code in _TIMED_OUT:
        return ServerTimeoutError(text)
    return ServerUnavailableError(text)


def refusal_of(error: KafkaError, acl: str = "") -> AccessDeniedError | None:
    """Return our error if a login, certificate or right is refused; ``acl`` as in `error_of`."""
    if error.code() not in _DENIED:
        return None
    text = f"Kafka: {error.name()}: {reason_of(error)}"
    return AccessDeniedError(f"{text}. {_advice(error, acl)}")


def consumer_acl(error: KafkaError, topic: str, group: str) -> str:
    """Return the right that a consumer lacks, on its group or its topic."""
    of_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    return f"Read on group {group}" if of_group else f"Read on topic {topic}"


def _advice(error: KafkaError, acl: str) -> str:
    """Return the next step for an error that a person must fix."""
    code = error.code()
    if code in _LOGIN_REFUSED:
        return _LOGIN
    if code not in _RIGHTS:
        return _CERTIFICATE
    missing = acl or _RIGHTS[code]
    return f"Headrace's Kafka user lacks {missing}: docs/own-servers.md lists the ACLs it needs"


def reason_of(error: KafkaError) -> str:
    """Return the text of an error.

    The duration of the attempt is removed, or each attempt would be logged as a new problem.
    """
    return _SPENT.sub("", error.str())


@contextmanager
def kafka_errors(acl: str = "") -> Iterator[None]:
    """Convert exceptions of confluent-kafka to errors of ours; ``acl`` as in `error_of`."""
    try:
        yield
    except KafkaException as exc:
        raise error_of(exc.args[0], acl) from exc


class FatalErrors:
    """An ``error_cb`` that stores the first fatal error of a client.

    librdkafka reports a fatal producer error only here. Later calls fail with codes that look
    transient.

    Parameters
    ----------
    also
        Also receives every error.
    """

    def __init__(self, also: Callable[[KafkaError], None] | None = None) -> None:
        self._also = also
        self._fatal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Receive an error from librdkafka. Runs inside ``poll`` or ``flush``."""
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
