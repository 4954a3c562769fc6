"""Conversion of Kafka's errors by how they are handled."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import (
    AccessDeniedError,
    FatalError,
    RefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from headrace.storage.kafka import FatalErrors, error_of, kafka_errors

OUT_OF_ORDER = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER


def _fatal(code: int = OUT_OF_ORDER) -> KafkaError:
    return KafkaError(code, "the broker lost the producer's state", True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_fatal(), FatalError),
        (_fatal(KafkaError._TIMED_OUT), FatalError),
        (_fatal(KafkaError.INVALID_RECORD), FatalError),
        # For calls on a failed client, only the code is known.
        (KafkaError(KafkaError._FATAL), FatalError),
        (KafkaError(OUT_OF_ORDER), ServerUnavailableError),
        (KafkaError(KafkaError._TIMED_OUT), ServerTimeoutError),
        (KafkaError(KafkaError.INVALID_RECORD), RefusedError),
    ],
)
def test_fatal_errors_are_recognised_by_the_error_object(
    error: KafkaError, expected: type[Exception]
) -> None:
    assert type(error_of(error)) is expected
    with pytest.raises(expected), kafka_errors():
        raise KafkaException(error)


def test_a_fatal_error_is_raised_as_a_new_object_each_time() -> None:
    reported: list[KafkaError] = []
    fatal = FatalErrors(reported.append)
    fatal(KafkaError(KafkaError._TRANSPORT))
    fatal.check()
    fatal(_fatal())
    fatal(KafkaError(KafkaError._TRANSPORT))
    raised = []
    for _ in range(2):
        with pytest.raises(FatalError, match="lost the producer's state") as caught:
            fatal.check()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert len(reported) == 3


@pytest.mark.parametrize(
    ("code", "acl", "named"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Write on topic x", "lacks Write on topic x"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "", "lacks a right on a topic"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "", "lacks Read on a consumer group"),
        (
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "Write on transactional id y",
            "lacks Write on transactional id y",
        ),
        (KafkaError.SASL_AUTHENTICATION_FAILED, "", "HEADRACE_KAFKA_PASSWORD"),
        (KafkaError.UNSUPPORTED_SASL_MECHANISM, "", "HEADRACE_KAFKA_SASL_MECHANISM"),
    ],
)
def test_a_refusal_names_the_right_or_the_settings(code: int, acl: str, named: str) -> None:
    error = error_of(KafkaError(code), acl)
    assert type(error) is AccessDeniedError
    assert named in str(error)


def test_a_fatal_refusal_says_what_to_do_and_that_the_process_restarts() -> None:
    error = error_of(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "denied", True))
    assert type(error) is FatalError
    assert "lacks Write on the topics" in str(error)
    assert "must restart" in str(error)
