"""Retiring a bridge: its session is removed only once it is empty."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from headrace.errors import HeadraceError, NotRetiredError
from headrace.ingest.inflight import InFlight

__all__ = ["Retirement"]

_log = structlog.get_logger(__name__)

#: A session that has been quiet for this long is empty. Longer than a bridge that still
#: runs waits before it takes its session back, so that it can't go unnoticed.
_QUIET_SECONDS = 8.0
#: A session that the broker did not have is empty; only what arrived since is awaited.
_NEW_SESSION_SECONDS = 1.0
_LEFT = (
    "Nothing was removed: the broker keeps what it still holds for the session. Run "
    "`headrace bridge --retire` again, or start the bridge, which subscribes again"
)


class Retirement:
    """Follows a session until it is empty, and confirms that it is gone.

    Empty is a state of its own: unsubscribed and confirmed by the broker, connected,
    nothing received for some time, and everything received delivered and acknowledged. A
    lost connection begins anew.

    Parameters
    ----------
    session_exists
        Asks the broker whether it still has the session.
    quiet_seconds
        How long nothing may arrive before the session counts as empty.
    clock
        A monotonic clock, in seconds.

    Attributes
    ----------
    emptied
        Whether the session was seen to be empty, and may be removed.
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
        """Note a connection, and whether the broker had the session."""
        self._lost = self._resumed and not resumed
        self._resumed = self._resumed or resumed

    def unsubscribed(self) -> None:
        """Note that the broker queues nothing more for the session."""
        self._quiet_since = self._clock()

    def received(self) -> None:
        """Note that messages arrived."""
        if self._quiet_since is not None:
            self._quiet_since = self._clock()

    def disconnected(self) -> None:
        """Note that the connection is gone."""
        self._quiet_since = None

    def taken_over(self) -> None:
        """Note that another client took the session."""
        self._taken_over = True

    def is_quiet(self, in_flight: InFlight) -> bool:
        """Whether nothing has arrived for some time and everything is acknowledged."""
        if self._quiet_since is None:
            return False
        if in_flight.count or in_flight.unacknowledged:
            self._quiet_since = self._clock()
        seconds = self._quiet_seconds if self._resumed else _NEW_SESSION_SECONDS
        return self._clock() - self._quiet_since > seconds

    def conclude(self, bridge: str) -> None:
        """Confirm the removal; to be called after the bridge has left the broker.

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
                "restart. What it held of it is gone; nothing is left to retire"
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
