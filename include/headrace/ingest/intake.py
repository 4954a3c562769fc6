"""Processes MQTT messages: stamps and checks each one, then produces or rejects it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog

from headrace.errors import HeadraceError
from headrace.ingest.delivery import Delivery
from headrace.ingest.devices import DeviceLimits
from headrace.ingest.drift import Drift, DriftWatch
from headrace.ingest.inflight import InFlight, InFlightMessage
from headrace.ingest.metrics import BridgeMetrics
from headrace.ingest.outbox import Outbox, Outgoing
from headrace.ingest.presence import PresenceRegistry
from headrace.ingest.redelivery import RecentPackets
from headrace.ingest.routing import Route, Router
from headrace.ingest.stamps import ClockJump, StampClock
from headrace.ingest.unmarked import UnmarkedRedeliveries
from headrace.models.deadletter import (
    MAX_DEAD_LETTER_BYTES,
    Reason,
    RejectedReadingError,
    Rejection,
    full_size,
)
from headrace.models.presence import PresenceState
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.storage.kafka import Headers
from headrace.storage.mqtt_stream import DUP, Publish
from headrace.storage.presence_records import presence_value

__all__ = ["Intake"]

_log = structlog.get_logger(__name__)

_DETAIL_CHARACTERS = 500
_RECEIVE_MAXIMUM = 1000


class Intake:
    """Moves messages from the broker to Kafka.

    Parameters
    ----------
    profile
        The kind of device.
    codec
        Checks the readings.
    outbox
        Kafka's producers. Its ``poll`` must be called by the same thread.
    in_flight
        Counts the messages in flight.
    recent
        Recognises redeliveries and numbers the messages.
    presence
        Knows the presence of devices.
    metrics
        Counters.
    bridge
        Id of the bridge, for the header.
    max_clock_drift
        Larger differences of a device's clock are reported.
    receive_maximum
        How many unacknowledged messages the broker may send.
    devices
        Limits the number of new devices.
    clock
        Stamps the messages; by default the system clock. Its jumps are reported here.

    Attributes
    ----------
    unmarked
        Recognises redelivered messages without DUP.
    last_jump
        The newest jump of the system clock; `None` if there was none.
    """

    def __init__(
        self,
        profile: Profile,
        codec: ReadingCodec,
        outbox: Outbox,
        in_flight: InFlight,
        recent: RecentPackets,
        presence: PresenceRegistry,
        metrics: BridgeMetrics,
        *,
        bridge: str,
        max_clock_drift: timedelta,
        receive_maximum: int = _RECEIVE_MAXIMUM,
        devices: DeviceLimits | None = None,
        clock: StampClock | None = None,
    ) -> None:
        self._topics = profile.topics
        self._id_field = profile.id_field
        self._check = codec.check
        self._routes = Router(profile.mqtt, codec)
        self._outbox = outbox
        self._in_flight = in_flight
        self._recent = recent
        self._presence = presence
        self._metrics = metrics
        self._bridge_header: tuple[str, str | bytes | None] = ("bridge", bridge.encode())
        self._devices = DeviceLimits() if devices is None else devices
        self._clock = StampClock() if clock is None else clock
        self._clock.on_jump = self._jumped
        self._drift = DriftWatch(max_clock_drift)
        self._delivery = Delivery(
            outbox, in_flight, profile.topics.dead_letter, self._dead_letter_refused
        )
        self._produce = self._delivery.produce
        self._rejected = {reason: metrics.rejected.labels(reason.value) for reason in Reason}
        self._ignored = metrics.ignored.labels("empty")
        self.last_jump: ClockJump | None = None
        self.unmarked = UnmarkedRedeliveries(recent, receive_maximum)

    @property
    def problem(self) -> str | None:
        """Topic and reason if Kafka does not accept some records until a person acts."""
        return self._delivery.problem

    def take(self, published: list[Publish]) -> None:  # noqa: C901, PLR0912 - hot, in one piece
        """Process messages in order.

        Raises
        ------
        TransientError
            If the connection has to end: the broker must send some of them again.
        """
        received = 0
        if self.unmarked.active:
            published = self.unmarked.sort_out(published)
        routes, in_flight, recent = self._routes, self._in_flight, self._recent
        # The messages arrived together and get time stamps one nanosecond apart.
        first_ns = self._clock.take(len(published))
        for now_ns, (flags, packet_id, topic, payload) in enumerate(published, first_ns):
            if flags & DUP and packet_id:
                known = recent.find(packet_id, payload)
                if known is not None:
                    in_flight.add_redelivered(known)
                    self._metrics.redelivered.inc()
                    continue
            route = routes[topic]
            if not payload and self._is_nothing(route):
                self._ignore(packet_id)
                continue
            message = in_flight.add(packet_id, len(payload) + len(topic))
            sequence = recent.remember(message, payload) if packet_id else recent.sequence
            if route.is_status:
                self._take_presence(route, topic, payload, message, now_ns, sequence)
                continue
            received += 1
            rejection = route.rejection
            if rejection is None:
                try:
                    time_ns = self._check(payload, route.device, now_ns)
                except RejectedReadingError as exc:
                    rejection = exc.rejection
                    if rejection.time_ns is not None and self._accepts(route, topic):
                        self._drift.observe(route.device, rejection.time_ns, now_ns)
                else:
                    if not (route.accepted or self._accepts(route, topic)):
                        rejection = self._too_many()
            if rejection is not None:
                self._reject(rejection, route, payload, message, now_ns, sequence)
                continue
            headers: Headers = [
                ("time_ns", str(time_ns or now_ns)),
                route.topic_header,
                self._bridge_header,
                ("packet_id", str(packet_id)),
                ("seq", str(sequence)),
            ]
            if time_ns is not None:
                headers.append(("taken_ns", str(now_ns)))
                self._drift.observe(route.device, time_ns, now_ns)
            self._produce(message, Outgoing(self._topics.raw, payload, route.key, headers))
        self._metrics.received.inc(received)
        self.unmarked.received(in_flight.unacknowledged)
        if self.unmarked.question is not None:
            raise self.unmarked.question

    def connected(self, *, resumed: bool) -> None:
        """Record the start of a connection, and whether the broker still had the session."""
        self.unmarked.connected(self._in_flight.unanswered, resumed=resumed)
        self._in_flight.unanswered.clear()

    def settle(self) -> None:
        """Handle records that Kafka did not accept; retry those that are due.

        Raises
        ------
        FatalError
            If the producer cannot continue. Nothing may be acknowledged afterwards.
        """
        self._delivery.settle()

    def discard(self) -> None:
        """Discard unconfirmed messages, which the broker redelivers to another client."""
        self._outbox.discard()
        self._delivery.discard()
        self._in_flight.discard()

    def recalled(self) -> None:
        """Continue after the newest message read from Kafka."""
        newest = self._recent.newest
        if newest is not None:
            self._clock.continue_after(newest.taken_ns)

    def drifting(self) -> dict[str, Drift]:
        """Return the devices with a wrong clock by id."""
        self._metrics.devices.set(len(self._devices))
        return self._drift.devices()

    def _is_nothing(self, route: Route) -> bool:
        """Return whether a message without payload can be ignored.

        In MQTT it only clears the retained message. On a status topic it also clears the state
        of a known device.
        """
        return not route.is_status or route.key is None or route.key not in self._devices

    def _ignore(self, packet_id: int) -> None:
        if packet_id:
            self._recent.ignored(packet_id)
        self._in_flight.add_ignored(packet_id)
        self._ignored.inc()

    def _accepts(self, route: Route, topic: bytes) -> bool:
        """Return whether the device is known or within the limits for new devices."""
        if not route.accepted and route.key is not None and self._devices.accept(route.key):
            route.accepted = True
            self._routes.keep(topic, route)
        return route.accepted

    def _too_many(self) -> Rejection:
        return Rejection(Reason.TOO_MANY_DEVICES, f"the id is new: {self._devices.limits}")

    def _jumped(self, jump: ClockJump) -> None:
        self.last_jump = jump
        self._metrics.clock_jumps.inc()
        _log.warning("clock jumped", seconds=round(jump.seconds, 3))

    def _dead_letter_refused(
        self, message: InFlightMessage, outgoing: Outgoing, error: HeadraceError
    ) -> None:
        self._dead_letter(
            Rejection(Reason.KAFKA_REFUSED, str(error)),
            message,
            outgoing.value or b"",
            outgoing.key,
            outgoing.headers,
        )

    def _reject(
        self,
        rejection: Rejection,
        route: Route,
        payload: bytes,
        message: InFlightMessage,
        now_ns: int,
        sequence: int,
    ) -> None:
        headers = self._headers(route, message, now_ns, sequence)
        self._dead_letter(rejection, message, payload, route.key, headers)

    def _headers(
        self, route: Route, message: InFlightMessage, now_ns: int, sequence: int
    ) -> Headers:
        return [
            ("time_ns", str(now_ns)),
            route.topic_header,
            self._bridge_header,
            ("packet_id", str(message.packet_id)),
            ("seq", str(sequence)),
        ]

    def _dead_letter(
        self,
        rejection: Rejection,
        message: InFlightMessage,
        payload: bytes,
        key: bytes | None,
        headers: Headers,
    ) -> None:
        self._rejected[rejection.reason].inc()
        self._produce(
            message,
            Outgoing(
                self._topics.dead_letter,
                payload[:MAX_DEAD_LETTER_BYTES],
                key,
                [
                    ("reason", rejection.reason.value),
                    ("detail", rejection.detail[:_DETAIL_CHARACTERS]),
                    ("size", str(full_size(payload))),
                    *headers,
                ],
            ),
        )

    def _take_presence(
        self,
        route: Route,
        topic: bytes,
        payload: bytes,
        message: InFlightMessage,
        now_ns: int,
        sequence: int,
    ) -> None:
        value: bytes | None = None
        rejection = route.rejection
        if rejection is None and not payload:
            self._presence.forget(route.device)
        elif rejection is None:
            state = _state_of(payload)
            if state is None:
                detail = f"the status is {payload[:100]!r}, neither online nor offline"
                rejection = Rejection(Reason.WRONG_TYPE, detail)
            elif not self._accepts(route, topic):
                rejection = self._too_many()
            else:
                now = datetime.fromtimestamp(now_ns / 1e9, UTC)
                presence = self._presence.update(route.device, state, now)
                value = presence_value(presence, self._id_field)
        if rejection is not None:
            self._reject(rejection, route, payload, message, now_ns, sequence)
            return
        # If Kafka refuses the record, it becomes a dead letter with these headers.
        headers = self._headers(route, message, now_ns, sequence)
        self._produce(message, Outgoing(self._topics.status, value, route.key, headers))


def _state_of(payload: bytes) -> PresenceState | None:
    try:
        return PresenceState(payload.decode("utf-8-sig"))
    except ValueError:
        return None
