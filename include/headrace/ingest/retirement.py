"""Retires a bridge: removes its session after the session is empty."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from headrace.errors import HeadraceError, NotRetiredError
from headrace.ingest.inflight import InFlight

__all__ = ["Retirement"]

_log = structlog.get_logger(__name__)

#: A session counts as empty after this time without a message. A bridge that still runs takes its
#: session back sooner, so it is noticed.
_QUIET_SECONDS = 8.0
#: A new session is empty, so only messages since its creation are awaited.
_NEW_SESSION_SECONDS = 1.0
_LEFT = (
    "Nothing was removed: the broker keeps the session with its remaining messages. Run "
    "`headrace bridge --retire` again, or start the bridge, which subscribes again"
)


class Retirement:
    """Tracks a session until it is empty and confirms its removal.

    A session is empty if the bridge is connected, the broker has confirmed the UNSUBSCRIBE,
    nothing was received for some time, and everything received is delivered and acknowledged. A
    lost connection resets this.

    Parameters
    ----------
    session_exists
        Asks the broker whether the session exists.
    quiet_seconds
        Time without messages after which the session counts as empty.
    clock
        A monotonic clock, in seconds.

    Attributes
    ----------
    emptied
        Whether the session was empty and can be removed.
    """

    def __init__(
        self,
        session_exists: Callable[[], bool],
        *,
        quiet_seconds: float = _QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session_exists = session_exists
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._quiet_since: float | None = None
        self._resumed = False
        self._lost = False
        self._taken_over = False
        self.emptied = False

    def connected(self, *, resumed: bool) -> None:
        """Record a connection, and whether the broker had the session."""
        self._lost = self._resumed and not resumed
        self._resumed = self._resumed or resumed

    def unsubscribed(self) -> None:
        """Record that the broker queues nothing more for the session."""
        self._quiet_since = self._clock()

    def received(self) -> None:
        """Record that messages arrived."""
        if self._quiet_since is not None:
            self._quiet_since = self._clock()

    def disconnected(self) -> None:
        """Record that the connection is lost."""
        self._quiet_since = None

    def taken_over(self) -> None:
        """Record that another client took the session."""
        self._taken_over = True

    def is_quiet(self, in_flight: InFlight) -> bool:
        """Return whether nothing arrived for some time and everything is acknowledged."""
        if self._quiet_since is None:
            return False
        if in_flight.count or in_flight.unacknowledged:
            self._quiet_since = self._clock()
        seconds = self._quiet_seconds if self._resumed else _NEW_SESSION_SECONDS
        return self._clock() - self._quiet_since > seconds

    def conclude(self, bridge: str) -> None:
        """Confirm the removal. Call it after the bridge has disconnected.

        Raises
        ------
        NotRetiredError
            If the session was not removed, or did not exist.
        """
        if self._taken_over:
            msg = (
                f"another client took the session {bridge} while it was being retired: a bridge "
                f"with this HEADRACE_BRIDGE_ID still runs. Stop it first. {_LEFT}"
            )
            raise NotRetiredError(msg)
        if not self.emptied:
            msg = f"stopped before the session {bridge} was empty. {_LEFT}"
            raise NotRetiredError(msg)
        self._confirm(bridge)
        if not self._resumed:
            msg = (
                f"the broker has no session {bridge}: there was nothing to retire. Is "
                "HEADRACE_BRIDGE_ID the id of that bridge?"
            )
            raise NotRetiredError(msg)
        if self._lost:
            msg = (
                f"the broker lost the session {bridge} before it was empty, for example in a "
                "restart. The queued messages are lost, and nothing is left to retire"
            )
            raise NotRetiredError(msg)
        _log.info("session removed", bridge=bridge)

    def _confirm(self, bridge: str) -> None:
        try:
            exists = self._session_exists()
        except HeadraceError as exc:
            msg = (
                f"the session {bridge} was empty, but the broker did not confirm its removal: "
                f"{exc}. Run `headrace bridge --retire` again"
            )
            raise NotRetiredError(msg) from exc
        if exists:
            msg = (
                f"the session {bridge} was empty, but the broker still has it after its removal. "
                "Nothing is lost. Stop every bridge with this id, then run `headrace bridge "
                "--retire` again"
            )
            raise NotRetiredError(msg)
