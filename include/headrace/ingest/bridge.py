"""The bridge: from MQTT to Kafka, acknowledged only after Kafka's delivery report."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential_jitter,
)

from headrace.errors import HeadraceError, PermanentError, TransientError
from headrace.ingest.health import Health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox
from headrace.ingest.redelivery import Bookmarks, RecentPackets
from headrace.storage.mqtt import MqttSession

__all__ = ["Bridge"]

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.5
_DELIVERY_SECONDS = 0.01
#: A bridge that has had no room for so long leaves the broker until it has: an unread
#: connection hides the broker's answers to pings.
_HOLD_SECONDS = 15.0
_TICK_SECONDS = 1.0
#: A session to be retired that has been quiet for so long is empty.
_QUIET_SECONDS = 3.0
#: Kafka that has confirmed nothing for so long is reported.
_SILENCE_SECONDS = 5.0


class Bridge:
    """Moves readings from a broker's session to Kafka.

    What it holds is bounded: without room it stops reading, and if that lasts it leaves
    the broker, which keeps the session, and comes back when Kafka has caught up.

    Parameters
    ----------
    session
        The session at the broker.
    outbox
        Kafka's producers.
    intake
        What is done with a message.
    in_flight
        What is on its way.
    recent
        What the broker may send again.
    bookmarks
        Where the bridge's newest messages are in Kafka.
    metrics, health
        What the bridge says about itself.
    stop
        Set when the bridge is to stop.
    drain_limit
        How long it may take to stop.
    retire
        End by itself when the session is empty, and remove it from the broker.
    """

    def __init__(
        self,
        session: MqttSession,
        outbox: Outbox,
        intake: Intake,
        in_flight: InFlight,
        recent: RecentPackets,
        bookmarks: Bookmarks,
        metrics: BridgeMetrics,
        health: Health,
        *,
        stop: threading.Event,
        drain_limit: timedelta,
        retire: bool = False,
    ) -> None:
        self._session = session
        self._outbox = outbox
        self._intake = intake
        self._in_flight = in_flight
        self._recent = recent
        self._bookmarks = bookmarks
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._drain_seconds = drain_limit.total_seconds()
        self._retire = retire
        self._idle_since = time.monotonic()
        self._was_connected = False
        self._full_since: float | None = None
        self._next_tick = 0.0
        self._counted = 0
        self._progress = time.monotonic()

    def run(self) -> None:
        """Work until told to stop, then drain.

        Raises
        ------
        PermanentError
            If the broker refuses the very first connection: a setting is wrong.
        ServerUnavailableError
            If the producer is broken; a new process begins anew.
        """
        while not self._stop.is_set():
            self._connect()
            try:
                if self._retire:
                    # What is queued already still comes; nothing is added to it.
                    self._session.unsubscribe()
                while not self._stop.is_set() and self._session.connected:
                    self._turn()
            except TransientError as exc:
                self._lost(exc)
        self._drain()

    def _connect(self) -> None:
        """Connect, however long it takes."""
        # A wrong login is for a person to mend. Once the login has worked, it is the
        # broker that is unwell, and it is asked again like one that is away.
        transient = HeadraceError if self._was_connected else TransientError
        attempts = Retrying(
            retry=retry_if_exception_type(transient),
            wait=wait_exponential_jitter(initial=0.2, max=5.0, jitter=0.5),
            stop=stop_when_event_set(self._stop),
            sleep=self._serve,
            before_sleep=self._not_connected,
            reraise=True,
        )
        try:
            resumed = attempts(self._session.connect)
        except TransientError:
            return
        except PermanentError:
            if self._stop.is_set():
                return
            raise
        if not resumed:
            self._recent.forget()
        self._was_connected = True
        self._full_since = None
        self._health.fine("mqtt")
        _log.info("connected to the broker", session="resumed" if resumed else "new")

    def _not_connected(self, attempt: RetryCallState) -> None:
        if attempt.outcome is not None:
            self._health.problem("mqtt", str(attempt.outcome.exception()))

    def _turn(self) -> None:
        """Go round once: take in, produce, acknowledge."""
        in_flight = self._in_flight
        full = in_flight.full
        published = self._session.receive(
            0.0 if in_flight.count else _IDLE_SECONDS, reading=not full
        )
        if published:
            self._intake.take(published)
            self._idle_since = time.monotonic()
        elif self._retire and self._is_empty():
            _log.info("the session is empty")
            self._stop.set()
        # Nothing to read, but reports are due: wait for those.
        waiting = in_flight.count and not published
        self._outbox.poll(_DELIVERY_SECONDS if waiting else 0)
        self._intake.settle()
        self._acknowledge()
        if full:
            self._hold()
        else:
            self._full_since = None
        self._tick()

    def _acknowledge(self) -> None:
        """Acknowledge what Kafka has."""
        ready = self._in_flight.acknowledgeable()
        if ready:
            self._recent.acknowledged(ready)
            self._session.acknowledge(ready)

    def _is_empty(self) -> bool:
        """Whether the broker seems to have nothing more for this session."""
        quiet = time.monotonic() - self._idle_since > _QUIET_SECONDS
        return quiet and not self._in_flight.count

    def _hold(self) -> None:
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        elif now - self._full_since > _HOLD_SECONDS:
            _log.warning("no room for more: leaving the broker, which keeps the session")
            self._leave()
            while not self._in_flight.has_room and not self._stop.is_set():
                self._serve(_IDLE_SECONDS)

    def _leave(self) -> None:
        self._session.leave(_IDLE_SECONDS)
        self._in_flight.connection_lost()

    def _lost(self, exc: TransientError) -> None:
        self._health.problem("mqtt", str(exc))
        self._session.leave(0.0)
        self._in_flight.connection_lost()

    def _serve(self, seconds: float) -> None:
        """Wait, but go on with what is on its way to Kafka."""
        deadline = time.monotonic() + seconds
        while not self._stop.is_set() and (remaining := deadline - time.monotonic()) > 0:
            self._outbox.poll(min(remaining, _IDLE_SECONDS))
            self._intake.settle()
            self._tick()

    def _tick(self) -> None:
        self._health.beat()
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + _TICK_SECONDS
        in_flight = self._in_flight
        self._bookmarks.save(in_flight.acknowledged_to)
        delivered = in_flight.delivered - self._counted
        self._metrics.delivered.inc(delivered)
        self._counted = in_flight.delivered
        if delivered or not in_flight.count:
            self._progress = now
            self._health.fine("kafka")
        elif now - self._progress > _SILENCE_SECONDS:
            self._health.problem("kafka", "Kafka confirms nothing; the broker keeps what comes")
        self._metrics.held_bytes.set(in_flight.bytes)
        self._metrics.in_flight.set(in_flight.count)
        self._metrics.connected.set(self._session.connected)
        drifting = self._intake.drifting()
        self._metrics.drifting.set(len(drifting))
        self._health.note("drifting", {name: drift.seconds for name, drift in drifting.items()})

    def _drain(self) -> None:
        """Stop in order: take nothing in, deliver, acknowledge, leave."""
        deadline = time.monotonic() + self._drain_seconds
        while self._in_flight.count and (remaining := deadline - time.monotonic()) > 0:
            self._outbox.poll(min(remaining, _IDLE_SECONDS))
            self._intake.settle()
        try:
            if self._session.connected:
                self._acknowledge()
        except TransientError as exc:
            _log.warning("could not acknowledge the last readings", problem=str(exc))
        emptied = self._retire and not self._in_flight.count
        self._session.leave(1.0, forever=emptied)
        self._next_tick = 0.0
        self._tick()
        if self._in_flight.count:
            _log.warning(
                "stopped before Kafka had everything; the broker will send it again",
                readings=self._in_flight.count,
            )
