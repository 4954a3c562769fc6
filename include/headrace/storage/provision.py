"""Creates the logins, buckets, tokens and topics that an installation needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from headrace.errors import TransientError
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.storage.findings import Finding
from headrace.storage.influx_setup import check_influx, provision_influx
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_check import check_topics
from headrace.storage.kafka_topics import provision_topics
from headrace.storage.mqtt_logins import provision_logins

__all__ = ["check", "provision"]


def provision(
    settings: Settings,
    profile: Profile,
    *,
    wait: timedelta = timedelta(0),
    not_yet: Callable[[BaseException], None] = lambda _: None,
) -> dict[str, str]:
    """Create missing logins, buckets, least-privilege tokens and topics. Can be repeated.

    Parameters
    ----------
    settings, profile
        The installation.
    wait
        Time limit for waiting for servers that are not running yet.
    not_yet
        Receives the reason of each wait.

    Returns
    -------
    dict
        Performed changes by name.

    Raises
    ------
    ConfigurationError, AccessDeniedError, TransientError
        As `provision_influx` and `provision_topics`; the last once the wait is over.
    """
    attempts = _attempts(wait, not_yet)
    # Logins first, because a broker with logins needs their file to start.
    logins = provision_logins(settings, profile)
    done = attempts(provision_influx, settings, profile)
    topics = attempts(provision_topics, Kafka.from_settings(settings), profile, settings)
    return {**logins, **done, **{f"topic {name}": what for name, what in topics.items()}}


def check(
    settings: Settings,
    profile: Profile,
    *,
    wait: timedelta = timedelta(0),
    not_yet: Callable[[BaseException], None] = lambda _: None,
) -> list[Finding]:
    """Compare InfluxDB and Kafka with what Headrace needs, and change nothing.

    Parameters and errors are those of `provision`.
    """
    attempts = _attempts(wait, not_yet)
    found = attempts(check_influx, settings, profile)
    return [*found, *attempts(check_topics, Kafka.from_settings(settings), profile, settings)]


def _attempts(wait: timedelta, not_yet: Callable[[BaseException], None]) -> Retrying:
    def wait_a_moment(attempt: RetryCallState) -> None:
        error = attempt.outcome and attempt.outcome.exception()
        if error:
            not_yet(error)

    return Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_fixed(timedelta(seconds=1)),
        stop=stop_after_delay(wait),
        before_sleep=wait_a_moment,
        reraise=True,
    )
