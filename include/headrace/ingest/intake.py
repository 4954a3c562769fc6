"""One message from MQTT to Kafka: dated, checked, and produced or rejected."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import (
    HeadraceError,
    PermanentError,
    RefusedError,
    ServerUnavailableError,
)
from headrace.ingest.inflight import Flight, InFlight
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox, Outgoing
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.roll_call import RollCall
from headrace.ingest.routing import Route, Router
from headrace.models.deadletter import (
    MAX_DEAD_LETTER_BYTES,
    Reason,
    RejectedReadingError,
    full_size,
)
from headrace.models.presence import PresenceState
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.kafka import Headers, error_of
from headrace.storage.mqtt_stream import DUP, Publish

__all__ = ["Drift", "Intake"]

_log = structlog.get_logger(__name__)

_DETAIL_CHARACTERS = 500
_RETRY_SECONDS = 1.0
#: A drifting device that is not heard of for so long is no longer listed.
_DRIFT_MEMORY_SECONDS = 600.0
#: Bounds the memory, and the report, when ids never come back.
_MAX_DRIFTING = 10_000
_CENTURY_NS = 100 * 365 * 86_400 * 10**9


@dataclass(frozen=True)
class Drift:
    """How far a device's clock is off.

    Parameters
    ----------
    seconds
        Positive where it is behind the bridge's clock.
    heard
        When its last reading came, in seconds since the epoch.
    """

    seconds: float
    heard: float


class _Again(NamedTuple):
    """A message whose record Kafka did not take although nothing is wrong with it."""

    due: float
    flight: Flight
    outgoing: Outgoing


class Intake:
    """Takes messages from the broker to Kafka.

    Parameters
    ----------
    profile
        The kind of device.
    codec
        Checks the readings.
    outbox
        Kafka's producers. Its ``poll`` must be called by the same thread.
    in_flight
        Counts what is on its way.
    recent
        Recognises what the broker sends again.
    roll_call
        Knows since when devices are online or offline.
    metrics
        Counters.
    bridge
        Name of the bridge, for the header.
    max_clock_drift
        A device whose clock is off by more counts as drifting.
    last_ns
        Newest stamp that the bridge gave before it was restarted.
    clock_ns
        The clock, in nanoseconds since the epoch.
    """

    def __init__(
        self,
        profile: Profile,
        codec: ReadingCodec,
        outbox: Outbox,
        in_flight: InFlight,
        recent: RecentPackets,
        roll_call: RollCall,
        metrics: BridgeMetrics,
        *,
        bridge: str,
        max_clock_drift: timedelta,
        last_ns: int = 0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._topics = profile.topics
        self._id_field = profile.id_field
        self._check = codec.check
        self._router = Router(profile.mqtt, codec)
        self._outbox = outbox
        self._in_flight = in_flight
        self._recent = recent
        self._roll_call = roll_call
        self._metrics = metrics
        self._bridge_header: tuple[str, str | bytes | None] = ("bridge", bridge.encode())
        self._max_drift_ns = max_clock_drift // timedelta(microseconds=1) * 1000
        self._last_ns = last_ns
        self._clock_ns = clock_ns
        self._again: list[_Again] = []
        self._drifting: dict[str, Drift] = {}
        self._rejected = {reason: metrics.rejected.labels(reason.value) for reason in Reason}

    def take(self, published: list[Publish]) -> None:
        """Take messages in, in their order."""
        received = 0
        routes, in_flight, recent = self._router, self._in_flight, self._recent
        # They have arrived together; a nanosecond tells one from the next. Unique and
        # increasing, also when the clock steps back.
        first_ns = max(self._clock_ns(), self._last_ns + 1)
        self._last_ns = first_ns + len(published)
        for now_ns, (flags, packet_id, topic, payload) in enumerate(published, first_ns):
            if flags & DUP and packet_id:
                known = recent.find(packet_id, payload)
                if known is not None:
                    in_flight.came_again(known)
                    self._metrics.redelivered.inc()
                    continue
            flight = in_flight.took_off(packet_id, len(payload))
            if packet_id:
                recent.remember(flight, payload)
            route = routes[topic]
            if route.is_status:
                self._take_presence(route, payload, flight, now_ns)
                continue
            received += 1
            try:
                if route.rejection is not None:
                    raise route.rejection
                time_ns = self._check(payload, route.device, now_ns)
            except RejectedReadingError as exc:
                if exc.time_ns is not None:
                    self._watch_clock(route.device, exc.time_ns, now_ns)
                self._reject(exc, route, payload, flight, now_ns)
                continue
            headers: Headers = [
                ("time_ns", str(time_ns or now_ns)),
                route.topic_header,
                self._bridge_header,
                ("packet_id", str(packet_id)),
            ]
            if time_ns is None:
                time_ns = now_ns
            else:
                headers.append(("taken_ns", str(now_ns)))
                self._watch_clock(route.device, time_ns, now_ns)
            self._produce(
                flight,
                Outgoing(self._topics.raw, payload, route.key, time_ns // 1_000_000, headers),
            )
        self._metrics.received.inc(received)

    def settle(self) -> None:
        """Deal with what Kafka did not take, and try again what is due.

        Raises
        ------
        ServerUnavailableError
            If the producer is broken for good; a new bridge process begins anew, and the
            broker sends again what is not acknowledged.
        """
        undelivered = self._in_flight.undelivered
        while undelivered:
            self._not_delivered(*undelivered.popleft())
        if self._again:
            now = time.monotonic()
            due = [item for item in self._again if item.due <= now]
            self._again = [item for item in self._again if item.due > now]
            for item in due:
                self._produce(item.flight, item.outgoing)

    def discard(self) -> None:
        """Drop everything that Kafka does not have: the broker sends it to another client."""
        self._outbox.discard()
        self._again.clear()
        self._in_flight.discard()

    def drifting(self) -> dict[str, Drift]:
        """Devices whose clock is off, by id."""
        oldest = time.time() - _DRIFT_MEMORY_SECONDS
        self._drifting = {
            device: drift for device, drift in self._drifting.items() if drift.heard >= oldest
        }
        return dict(self._drifting)

    def _produce(self, flight: Flight, outgoing: Outgoing) -> None:
        flight.outgoing = outgoing
        producer = self._outbox.alone if flight.alone else self._outbox.usual
        while True:
            try:
                producer.produce(
                    outgoing.topic,
                    outgoing.value,
                    outgoing.key,
                    on_delivery=flight.report,
                    timestamp=outgoing.timestamp,
                    headers=outgoing.headers,
                )
            except BufferError:
                # librdkafka's queue is full; its limit is above ours, so only just.
                self._outbox.poll(0.1)
            except KafkaException as exc:
                error = error_of(exc.args[0])
                if not self._is_its_fault(error, outgoing):
                    self._produce_later(flight, outgoing, error)
                    return
                self._dead_letter_refused(flight, outgoing, error)
                return
            else:
                return

    def _not_delivered(self, flight: Flight, error: KafkaError) -> None:
        if error.fatal():
            msg = f"the producer can't go on: {error.str()}"
            raise ServerUnavailableError(msg)
        outgoing, mapped = flight.outgoing, error_of(error)
        if not self._is_its_fault(mapped, outgoing):
            self._produce_later(flight, outgoing, mapped)
        elif flight.alone:
            self._dead_letter_refused(flight, outgoing, mapped)
        else:
            # Kafka refuses a batch for one bad record. Alone, each speaks for itself.
            flight.alone = True
            self._produce(flight, outgoing)

    def _is_its_fault(self, error: HeadraceError, outgoing: Outgoing) -> bool:
        """Whether it is this reading that Kafka will never take."""
        return isinstance(error, RefusedError) and outgoing.topic == self._topics.raw

    def _produce_later(self, flight: Flight, outgoing: Outgoing, error: HeadraceError) -> None:
        if isinstance(error, PermanentError):
            # For a person to mend: a right that is missing, a topic that takes too little.
            _log.error("Kafka does not take a record, trying again", problem=str(error))
        self._again.append(_Again(time.monotonic() + _RETRY_SECONDS, flight, outgoing))

    def _dead_letter_refused(
        self, flight: Flight, outgoing: Outgoing, error: HeadraceError
    ) -> None:
        self._dead_letter(
            Reason.KAFKA_REFUSED,
            str(error),
            flight,
            outgoing.value,
            outgoing.key,
            dict(outgoing.headers),
        )

    def _reject(
        self,
        rejection: RejectedReadingError,
        route: Route,
        payload: bytes,
        flight: Flight,
        now_ns: int,
    ) -> None:
        headers: dict[str, str | bytes | None] = {
            "time_ns": str(now_ns),
            "topic": route.topic_header[1],
            "bridge": self._bridge_header[1],
            "packet_id": str(flight.packet_id),
        }
        self._dead_letter(rejection.reason, rejection.detail, flight, payload, route.key, headers)

    def _dead_letter(
        self,
        reason: Reason,
        detail: str,
        flight: Flight,
        value: bytes | None,
        key: bytes | None,
        headers: dict[str, str | bytes | None],
    ) -> None:
        payload = value or b""
        size = full_size(payload)
        self._rejected[reason].inc()
        self._produce(
            flight,
            Outgoing(
                self._topics.dead_letter,
                payload[:MAX_DEAD_LETTER_BYTES],
                key,
                self._clock_ns() // 1_000_000,
                [
                    ("reason", reason.value),
                    ("detail", detail[:_DETAIL_CHARACTERS]),
                    ("size", str(size)),
                    *headers.items(),
                ],
            ),
        )

    def _take_presence(self, route: Route, payload: bytes, flight: Flight, now_ns: int) -> None:
        value: bytes | None = None
        now = datetime.fromtimestamp(now_ns / 1e9, UTC)
        try:
            if route.rejection is not None:
                raise route.rejection
            if payload:
                state = PresenceState(payload.decode("utf-8", "replace"))
                value = self._roll_call.hear(route.device, state, now).to_json(self._id_field)
            else:
                # In MQTT an empty retained message deletes the one that is retained.
                self._roll_call.forget(route.device)
        except RejectedReadingError as exc:
            self._reject(exc, route, payload, flight, now_ns)
            return
        except ValueError:
            detail = f"the status is {payload[:100]!r}, neither online nor offline"
            rejection = RejectedReadingError(Reason.WRONG_TYPE, detail)
            self._reject(rejection, route, payload, flight, now_ns)
            return
        headers: Headers = [route.topic_header, self._bridge_header]
        self._produce(
            flight, Outgoing(self._topics.status, value, route.key, now_ns // 1_000_000, headers)
        )

    def _watch_clock(self, device: str, time_ns: int, now_ns: int) -> None:
        lag_ns = now_ns - time_ns
        if abs(lag_ns) > self._max_drift_ns:
            if len(self._drifting) >= _MAX_DRIFTING and device not in self._drifting:
                return
            # JSON sets no limit to a number, a float does.
            seconds = min(max(lag_ns, -_CENTURY_NS), _CENTURY_NS) / 1e9
            # What was buffered is late, too; the newest reading of the lot clears it.
            self._drifting[device] = Drift(seconds, now_ns / 1e9)
        elif device in self._drifting:
            del self._drifting[device]
