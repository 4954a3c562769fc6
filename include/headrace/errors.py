"""Errors by what can be done about them.

Whoever retries decides by type: a worker waits out a `TransientError`, Airflow's
retry rules name these classes, and nobody reads a message to find out. Errors of
third-party clients become one of these at the edge, in `headrace.storage`.
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
    """Asking again may help: the other side is away, slow or overloaded."""


class ServerUnavailableError(TransientError):
    """A server refused the connection, broke it, or said that it can't serve now."""


class ConnectionClosedError(ServerUnavailableError):
    """A server closed an established connection without giving a reason."""


class ServerTimeoutError(TransientError):
    """A server accepted the call and did not answer within the time limit."""


class RangeNotOverError(TransientError):
    """A range of windows is not over by the clocks of the task and of InfluxDB."""


class SessionTakenOverError(TransientError):
    """Another MQTT client connected under this client id and now receives the messages."""


class PermanentError(HeadraceError):
    """Asking again gives the same answer until somebody changes something."""


class FatalError(HeadraceError):
    """The process cannot continue, but a new one can.

    Neither transient nor permanent: no call may be retried, and nothing more
    is delivered or acknowledged. The process ends, and its supervisor starts another.
    """


class ConfigurationError(PermanentError):
    """A setting or a profile is wrong; the message names it and what to write instead."""


class AccessDeniedError(PermanentError):
    """A server does not accept the login, token or certificate."""


class MissingResourceError(PermanentError):
    """A bucket, topic or organisation is not there; ``headrace provision`` makes them."""


class NotRetiredError(PermanentError):
    """A bridge's session was not removed from the broker; the message says what to do."""


class BadQueryError(PermanentError):
    """InfluxDB can't run a Flux query as it is written."""


class RefusedError(PermanentError):
    """A server refuses the data themselves: what was sent is at fault, not the server."""


class RawDataGoneError(PermanentError):
    """The raw readings of a range are older than they are kept, so it can't be recomputed."""


class QualityError(PermanentError):
    """A quality check has measured something worse than its fail level."""

    def __init__(self, message: str, checks: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        #: Names of the failed checks.
        self.checks = checks
