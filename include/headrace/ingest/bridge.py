"""The bridge moves readings from MQTT to Kafka; it acknowledges after Kafka's confirmation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from headrace.errors import (
    ConnectionClosedError,
    FatalError,
    HeadraceError,
    PermanentError,
    SessionTakenOverError,
    TransientError,
)
from headrace.ingest.backoff import Backoff
from headrace.ingest.bridge_monitor import BridgeMonitor
from headrace.ingest.health import Health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.outbox import Outbox
from headrace.ingest.recall import Recall
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.retirement import Retirement
from headrace.ingest.session_recovery import SessionRecovery
from headrace.storage.mqtt import MqttSession
from headrace.storage.mqtt_stream import Publish

__all__ = ["Bridge"]

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.5
_DELIVERY_SECONDS = 0.01
#: After this time without room in its buffer, the bridge disconnects until there is room,
#: because it does not see the broker's answers to pings on an unread connection.
_HOLD_SECONDS = 15.0


class Bridge:
    """Moves readings from a broker's session to Kafka.

    The loop: read the session's records from Kafka, connect, process messages until the
    connection ends, pause, and start again. The buffer is bounded. If it is full, the bridge
    stops reading. If that lasts, it disconnects until Kafka has caught up, while the broker
    keeps the session.

    Parameters
    ----------
    session
        The session at the broker.
    outbox
        Kafka's producers.
    intake
        Processes messages.
    in_flight
        Messages between the broker and Kafka.
    recent
        Messages that the broker may redeliver.
    recall
        Reads the session's records from Kafka.
    monitor, health
        Metrics and health of the bridge.
    bridge
        Id of the bridge, which is the id of its session.
    stop
        Set when the bridge is to stop.
    drain_limit
        Time limit for stopping.
    broker_accepts
        Checks whether the broker accepts connections. Optional.
    retirement
        If given, empty the session, remove it from the broker, and exit.
    reconnect, taken_over
        Pauses after a lost connection, and after another client took the session.
    """

    def __init__(
        self,
        session: MqttSession,
        outbox: Outbox,
        intake: Intake,
        in_flight: InFlight,
        recent: RecentPackets,
        recall: Recall,
        monitor: BridgeMonitor,
        health: Health,
        *,
        bridge: str,
        stop: threading.Event,
        drain_limit: timedelta,
        broker_accepts: Callable[[], bool] = lambda: False,
        retirement: Retirement | None = None,
        reconnect: Backoff | None = None,
        taken_over: Backoff | None = None,
    ) -> None:
        self._session = session
        self._outbox = outbox
        self._intake = intake
        self._in_flight = in_flight
        self._recent = recent
        self._monitor = monitor
        self._health = health
        self._bridge = bridge
        self._stop = stop
        self._drain_seconds = drain_limit.total_seconds()
        self._broker_accepts = broker_accepts
        self._retirement = retirement
        self._reconnect = reconnect or Backoff(0.2, 5.0)
        # The first pause is shorter than the wait of `Retirement`, so that a bridge that still
        # runs interrupts its own retirement.
        self._taken_over = taken_over or Backoff(3.0, 30.0, good_after=60.0)
        self._was_connected = False
        self._had_session = False
        self._recovery = SessionRecovery(
            session,
            intake,
            in_flight,
            recall,
            monitor,
            health,
            stop=stop,
            serve=self._serve,
        )
        self._full_since: float | None = None

    def run(self) -> None:
        """Run until `stop` is set, then drain.

        Raises
        ------
        PermanentError
            If the broker refuses the first connection, because a setting is wrong.
        NotRetiredError
            If the session could not be retired.
        FatalError
            If the producer failed permanently. Nothing more is delivered or acknowledged.
            After a restart, the broker redelivers all unacknowledged messages.
        """
        try:
            while not self._done:
                pause = self._one_connection()
                if not self._done:
                    self._serve(pause)
            self._drain()
        except FatalError as exc:
            self._health.problem("kafka", str(exc))
            self._session.leave(0.0)
            raise
        if self._retirement is not None:
            self._retirement.conclude(self._bridge)

    @property
    def _done(self) -> bool:
        emptied = self._retirement is not None and self._retirement.emptied
        return emptied or self._stop.is_set()

    def _one_connection(self) -> float:
        """Process messages until the connection ends.

        Returns
        -------
        float
            Seconds to wait before the next connection.
        """
        try:
            self._connect_and_work()
        except SessionTakenOverError as exc:
            return self._yield_session(exc)
        except ConnectionClosedError as exc:
            return self._closed(exc)
        except TransientError as exc:
            return self._lost(exc)
        except PermanentError as exc:
            # A person must correct a wrong login. If the login has worked before, the broker is
            # at fault and is retried like an unavailable one.
            if not self._was_connected:
                raise
            return self._lost(exc)
        # Disconnected on purpose: the buffer was full, Kafka is unavailable, or the bridge stops.
        return self._reconnect.failed()

    def _connect_and_work(self) -> None:
        if self._recovery.due and not self._recovery.read():
            return
        resumed = self._connect()
        if self._recovery.due:
            arrived = self._recovery.settle(resumed=resumed)
            if self._recovery.due:
                # Kafka is unavailable, or the bridge stops.
                self._leave(0.0)
                return
            if arrived:
                self._take(arrived)
        elif not resumed:
            self._recent.forget()
        if self._retirement is not None:
            self._session.unsubscribe()
            self._retirement.unsubscribed()
        while self._session.connected and not self._done:
            self._turn()

    def _connect(self) -> bool:
        resumed = self._session.connect()
        self._reconnect.connected()
        self._taken_over.connected()
        self._was_connected = True
        self._full_since = None
        self._health.fine("mqtt")
        if self._retirement is not None:
            self._retirement.connected(resumed=resumed)
        _log.info("connected to the broker", session="resumed" if resumed else "new")
        if self._had_session and not resumed and self._retirement is None:
            # The queued messages are lost. The bridge can't know their number.
            _log.error("broker lost the session", bridge=self._bridge)
        self._had_session = True
        self._intake.connected(resumed=resumed)
        for shortfall in self._session.shortfalls:
            _log.warning("broker grants less than requested", shortfall=shortfall)
        self._note_shortfalls()
        return resumed

    def _note_shortfalls(self) -> None:
        unmarked = self._intake.unmarked.shortfalls
        for shortfall in unmarked:
            _log.warning("broker grants less than requested", shortfall=shortfall)
        self._health.note("shortfalls", [*self._session.shortfalls, *unmarked])

    def _turn(self) -> None:
        """Run one round: receive, produce, acknowledge."""
        in_flight = self._in_flight
        full = in_flight.full
        published = self._session.receive(
            0.0 if in_flight.count else _IDLE_SECONDS, reading=not full
        )
        if published:
            self._take(published)
        # Nothing to read, but delivery reports are due, so wait for those.
        waiting = in_flight.count and not published
        self._outbox.poll(_DELIVERY_SECONDS if waiting else 0)
        self._intake.settle()
        self._acknowledge()
        if full:
            self._hold()
        else:
            self._full_since = None
        if self._retirement is not None:
            self._check_empty(self._retirement)
        self._monitor.tick(connected=True)

    def _check_empty(self, retirement: Retirement) -> None:
        """Check whether the session to be retired is empty."""
        if not retirement.is_quiet(self._in_flight):
            return
        # A hanging broker is quiet, too. Only an answer shows that it has sent everything.
        self._session.unsubscribe()
        late = self._session.receive(_IDLE_SECONDS)
        if late:
            self._take(late)
        else:
            _log.info("the session is empty")
            retirement.emptied = True

    def _take(self, published: list[Publish]) -> None:
        if self._retirement is not None:
            self._retirement.received()
        known = self._intake.unmarked.shortfalls
        self._intake.take(published)
        if self._intake.unmarked.shortfalls != known:
            self._note_shortfalls()

    def _acknowledge(self) -> None:
        """Acknowledge the messages that Kafka has confirmed."""
        ready = self._in_flight.acknowledgeable()
        if ready:
            self._recent.acknowledged(ready)
            self._intake.unmarked.acknowledged()
            self._session.acknowledge(ready)

    def _hold(self) -> None:
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        elif now - self._full_since > _HOLD_SECONDS:
            _log.warning("buffer full: leaving the broker, which keeps the session")
            self._leave(_IDLE_SECONDS)
            while not self._in_flight.has_room and not self._stop.is_set():
                self._serve(_IDLE_SECONDS)

    def _leave(self, seconds: float) -> None:
        self._session.leave(seconds)
        self._in_flight.connection_lost()
        if self._retirement is not None:
            self._retirement.disconnected()

    def _lost(self, exc: HeadraceError) -> float:
        self._health.problem("mqtt", str(exc))
        self._leave(0.0)
        # While this bridge was disconnected, another process may have used the session.
        self._recovery.due = True
        return self._reconnect.failed()

    def _closed(self, exc: ConnectionClosedError) -> float:
        """Distinguish a broker that died from one that gave the session to another client.

        In the second case, mosquitto 2.0 closes the connection without the reason of MQTT 5.
        """
        pause = self._lost(exc)
        if not self._broker_accepts():
            return pause
        problem = (
            "the broker closed the connection without a reason and accepts new ones: probably "
            f"another client took this session, because HEADRACE_BRIDGE_ID {self._bridge} is in "
            "use twice"
        )
        _log.warning("session probably taken over by another client", bridge=self._bridge)
        self._health.problem("mqtt", problem)
        if self._retirement is not None:
            self._retirement.taken_over()
            self._stop.set()
        return self._taken_over.failed()

    def _yield_session(self, exc: SessionTakenOverError) -> float:
        """Leave the session to the other client for some time."""
        problem = (
            f"another client took this session: HEADRACE_BRIDGE_ID {self._bridge} is in use "
            "twice. Stop one of the two bridges, or set another HEADRACE_BRIDGE_ID for it"
        )
        _log.error("session taken over by another client", bridge=self._bridge, problem=str(exc))
        self._health.problem("mqtt", problem)
        self._leave(0.0)
        # The broker redelivers these to the other client, so they must not reach Kafka from here.
        self._intake.discard()
        self._recovery.due = True
        if self._retirement is not None:
            self._retirement.taken_over()
            self._stop.set()
        return self._taken_over.failed()

    def _serve(self, seconds: float) -> None:
        """Wait, and continue to deliver to Kafka."""
        deadline = time.monotonic() + seconds
        while not self._stop.is_set() and (remaining := deadline - time.monotonic()) > 0:
            self._outbox.poll(min(remaining, _IDLE_SECONDS))
            self._intake.settle()
            self._monitor.tick(connected=False)

    def _drain(self) -> None:
        """Stop in order: stop receiving, deliver, acknowledge, disconnect."""
        deadline = time.monotonic() + self._drain_seconds
        while self._in_flight.count and (remaining := deadline - time.monotonic()) > 0:
            self._outbox.poll(min(remaining, _IDLE_SECONDS))
            self._intake.settle()
        try:
            if self._session.connected:
                self._acknowledge()
        except TransientError as exc:
            _log.warning("could not acknowledge the last readings", problem=str(exc))
        emptied = self._retirement is not None and self._retirement.emptied
        self._session.leave(1.0, forever=emptied)
        self._monitor.report(connected=False)
        if self._in_flight.count:
            _log.warning(
                "stopped before Kafka had everything; the broker will send it again",
                readings=self._in_flight.count,
            )
