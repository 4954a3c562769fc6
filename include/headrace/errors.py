"""Error types, by how callers handle them.

The type decides whether to retry: a worker retries after a `TransientError`, and Airflow's
retry rules name these classes. No code parses messages. `headrace.storage` converts errors of
third-party clients to these types.
"""

from __future__ import annotations

__all__ = [
    "AccessDeniedError",
    "BadQueryError",
    "ConfigurationError",
    "ConnectionClosedError",
    "FatalError",
    "HeadraceError",
    "MissingResourceError",
    "NotRetiredError",
    "PermanentError",
    "QualityError",
    "RangeNotOverError",
    "RawDataGoneError",
    "RefusedError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "SessionTakenOverError",
    "TransientError",
]


class HeadraceError(Exception):
    """Base class of every error that Headrace raises on purpose."""


class TransientError(HeadraceError):
    """A retry can help: the server is unavailable, slow or overloaded."""


class ServerUnavailableError(TransientError):
    """A server refused or broke the connection, or reported that it is unavailable."""


class ConnectionClosedError(ServerUnavailableError):
    """A server closed an established connection without giving a reason."""


class ServerTimeoutError(TransientError):
    """A server accepted a call and did not answer within the time limit."""


class RangeNotOverError(TransientError):
    """A range of windows has not ended by the clocks of the task and of InfluxDB."""


class SessionTakenOverError(TransientError):
    """Another MQTT client connected with this client id and now receives the messages."""


class PermanentError(HeadraceError):
    """A retry gives the same result until a person changes something."""


class FatalError(HeadraceError):
    """The process cannot continue, but a new one can.

    It is neither transient nor permanent: no call may be retried, and nothing more is delivered
    or acknowledged. The process exits, and its supervisor starts another.
    """


class ConfigurationError(PermanentError):
    """A setting or profile is wrong. The message names it and what to write instead."""


class AccessDeniedError(PermanentError):
    """A server does not accept the login, token or certificate."""


class MissingResourceError(PermanentError):
    """A bucket, topic or organisation is missing; ``headrace provision`` creates it."""


class NotRetiredError(PermanentError):
    """A bridge's session was not removed from the broker. The message has the next step."""


class BadQueryError(PermanentError):
    """A Flux query is wrong."""


class RefusedError(PermanentError):
    """A server refuses data because the data are wrong."""


class RawDataGoneError(PermanentError):
    """The raw readings of a range are deleted, so it can't be computed again."""


class QualityError(PermanentError):
    """A quality check has reached its fail level."""

    def __init__(self, message: str, checks: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        #: Names of the failed checks.
        self.checks = checks
