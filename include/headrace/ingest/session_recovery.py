"""Recovers the session after a reconnect, without losing or duplicating messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from headrace.errors import FatalError, HeadraceError
from headrace.ingest.backoff import Backoff
from headrace.ingest.bridge_monitor import BridgeMonitor
from headrace.ingest.health import Health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.recall import Recall
from headrace.storage.mqtt import MqttSession
from headrace.storage.mqtt_stream import Publish

__all__ = ["SessionRecovery"]

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.5
#: Time for records in flight at the end of a connection to reach Kafka.
_DELIVERY_LIMIT_SECONDS = 5.0
#: Time for another process's records of this session to reach Kafka. The wait repeats while
#: records arrive, up to the limit.
_SETTLE_SECONDS = 1.0
_SETTLE_LIMIT_SECONDS = 15.0


class SessionRecovery:
    """Reads the records of a session from Kafka, before and after the connection.

    Parameters
    ----------
    session
        The session at the broker.
    intake
        Processes messages.
    in_flight
        Messages between the broker and Kafka.
    recall
        Reads the session's records from Kafka.
    monitor, health
        Metrics and health of the bridge.
    stop
        Set when the bridge is to stop.
    serve
        Waits some seconds while delivery to Kafka continues.

    Attributes
    ----------
    due
        Whether Kafka can have records of the session that the bridge does not know.
    """

    def __init__(
        self,
        session: MqttSession,
        intake: Intake,
        in_flight: InFlight,
        recall: Recall,
        monitor: BridgeMonitor,
        health: Health,
        *,
        stop: threading.Event,
        serve: Callable[[float], None],
    ) -> None:
        self._session = session
        self._intake = intake
        self._in_flight = in_flight
        self._recall = recall
        self._monitor = monitor
        self._health = health
        self._stop = stop
        self._serve = serve
        self.due = True

    def read(self) -> bool:
        """Read the session's records without a time limit; return false if `stop` is set.

        Call it while disconnected, because it can take longer than the keep-alive.
        """
        # Records in flight can be read only after they have arrived.
        deadline = time.monotonic() + _DELIVERY_LIMIT_SECONDS
        while self._in_flight.count and time.monotonic() < deadline and not self._stop.is_set():
            self._serve(_IDLE_SECONDS)
        backoff = Backoff(0.2, 5.0)
        while not self._stop.is_set():
            try:
                known = self._recall.read()
            except FatalError:
                raise
            except HeadraceError as exc:
                # Includes a missing topic, which may be provisioned soon.
                self._health.problem("kafka", str(exc))
                self._serve(backoff.failed())
            else:
                self._health.fine("kafka")
                _log.info("read the newest records from Kafka", messages=known)
                return True
        return False

    def settle(self, *, resumed: bool) -> list[Publish]:
        """Read late records from Kafka before the first message is processed.

        The previous owner of the session can still have records in flight. The broker's
        messages wait in the socket.

        Parameters
        ----------
        resumed
            Whether the broker still had the session.

        Returns
        -------
        list
            Messages that arrived with the broker's answers. If `due` is still true, Kafka is
            unavailable or the bridge stops, and the connection must not be used.

        Raises
        ------
        TransientError
            If the connection is lost.
        """
        arrived: list[Publish] = []
        if resumed and self._in_flight.count:
            # The broker redelivers it. In a new session it would not.
            self._intake.discard()
        deadline = time.monotonic() + _SETTLE_LIMIT_SECONDS
        while resumed and not self._stop.is_set():
            arrived += self._wait_connected(_SETTLE_SECONDS)
            try:
                found = self._recall.read()
            except FatalError:
                raise
            except HeadraceError as exc:
                self._health.problem("kafka", str(exc))
                return []
            if not found or time.monotonic() > deadline:
                break
        if self._stop.is_set():
            return []
        self._recall.apply(resumed=resumed)
        self.due = False
        return arrived

    def _wait_connected(self, seconds: float) -> list[Publish]:
        arrived: list[Publish] = []
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0 and not self._stop.is_set():
            arrived += self._session.receive(min(remaining, 0.1), reading=False)
            self._monitor.tick(connected=False)
        return arrived
