"""Recovers the session after a reconnect, so that no message is lost or stored twice."""

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
#: What was on its way to Kafka at the end of a connection has this long to arrive.
_DELIVERY_LIMIT_SECONDS = 5.0
#: What another process has sent to Kafka for this session arrives within this time. The
#: wait repeats as long as something arrives, up to the limit.
_SETTLE_SECONDS = 1.0
_SETTLE_LIMIT_SECONDS = 15.0


class SessionRecovery:
    """Reads what Kafka holds of a session: before the connection, and again after it.

    Parameters
    ----------
    session
        The session at the broker.
    intake
        Processes messages.
    in_flight
        Messages between the broker and Kafka.
    recall
        Reads what Kafka holds of the session.
    monitor, health
        What the bridge reports about itself.
    stop
        Set when the bridge is to stop.
    serve
        Waits some seconds, and meanwhile continues to deliver to Kafka.

    Attributes
    ----------
    due
        Whether Kafka may hold messages of the session that the bridge does not know.
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
        """Read what Kafka holds, however long it takes; false if told to stop.

        To be called without a connection: this may take longer than the broker waits.
        """
        # What is on its way to Kafka can be read there only after it has arrived.
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
                # Also a missing topic: it may be about to be provisioned.
                self._health.problem("kafka", str(exc))
                self._serve(backoff.failed())
            else:
                self._health.fine("kafka")
                _log.info("read the newest records from Kafka", messages=known)
                return True
        return False

    def settle(self, *, resumed: bool) -> list[Publish]:
        """Read what reaches Kafka late, before the first message is processed.

        Whoever had the session until now may still have records on their way to Kafka.
        The broker's messages stay in the socket meanwhile.

        Parameters
        ----------
        resumed
            Whether the broker still had the session.

        Returns
        -------
        list
            Messages that arrived all the same, with the broker's answers. If `due` is
            still true, Kafka is unavailable or the bridge is to stop, and the connection
            must not be used.

        Raises
        ------
        TransientError
            If the connection is lost.
        """
        arrived: list[Publish] = []
        if resumed and self._in_flight.count:
            # The broker sends it again. In a new session nobody would.
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
