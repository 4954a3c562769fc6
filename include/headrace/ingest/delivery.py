"""Produces records to Kafka and handles the records that Kafka does not accept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import FatalError, HeadraceError, PermanentError, RefusedError
from headrace.ingest.inflight import InFlight, InFlightMessage
from headrace.ingest.outbox import Outbox, Outgoing
from headrace.storage.kafka import error_of

__all__ = ["Delivery", "Refused"]

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0

#: Converts a record that Kafka refuses permanently to a dead letter.
Refused = Callable[[InFlightMessage, Outgoing, HeadraceError], None]


class _Retry(NamedTuple):
    """A record to retry, because Kafka did not accept it for a reason outside the record."""

    due: float
    message: InFlightMessage
    outgoing: Outgoing


class Delivery:
    """Produces each record until Kafka accepts it or refuses it permanently.

    Parameters
    ----------
    outbox
        Kafka's producers. Its ``poll`` must be called by the same thread.
    in_flight
        Collects undelivered messages.
    dead_letter_topic
        Topic of the dead letters. A refused dead letter is shortened; other refused records are
        passed to `refused`.
    refused
        Converts a refused record to a dead letter.
    clock
        A monotonic clock, in seconds.

    Attributes
    ----------
    problem
        Topic and reason if Kafka does not accept some records until a person acts; otherwise
        `None`.
    """

    def __init__(
        self,
        outbox: Outbox,
        in_flight: InFlight,
        dead_letter_topic: str,
        refused: Refused,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._in_flight = in_flight
        self._dead_letter_topic = dead_letter_topic
        self._refused = refused
        self._clock = clock
        self._retries: list[_Retry] = []
        #: Messages that wait because of a problem, with its text.
        self._held: dict[InFlightMessage, str] = {}
        self._next_look = 0.0
        self.problem: str | None = None

    def produce(self, message: InFlightMessage, outgoing: Outgoing) -> None:
        """Produce a message's record.

        Raises
        ------
        FatalError
            If the producer cannot continue.
        """
        message.outgoing = outgoing
        producer = self._outbox.isolated if message.isolated else self._outbox.batching
        while True:
            try:
                producer.produce(
                    outgoing.topic,
                    outgoing.value,
                    outgoing.key,
                    on_delivery=message.report,
                    headers=outgoing.headers,
                )
            except BufferError:
                # librdkafka's queue is full. Its limit is above ours, so this does not last.
                self._outbox.poll(0.1)
            except KafkaException as exc:
                self._not_accepted(message, outgoing, exc.args[0], isolated=True)
                return
            else:
                return

    def settle(self) -> None:
        """Handle records that Kafka did not accept; retry those that are due.

        Raises
        ------
        FatalError
            If the producer cannot continue. After a restart, the broker redelivers all
            unacknowledged messages.
        """
        undelivered = self._in_flight.undelivered
        while undelivered:
            message, error = undelivered.popleft()
            self._not_accepted(message, message.outgoing, error, isolated=message.isolated)
        if not self._retries and not self._held:
            return
        now = self._clock()
        due = [item for item in self._retries if item.due <= now]
        if due:
            self._retries = [item for item in self._retries if item.due > now]
            for item in due:
                self.produce(item.message, item.outgoing)
        if self._held and now >= self._next_look:
            self._next_look = now + _RETRY_SECONDS
            self._look_at_held()

    def discard(self) -> None:
        """Discard all records that Kafka has not confirmed."""
        self._retries.clear()
        self._held.clear()
        self._say(None)

    def _not_accepted(
        self, message: InFlightMessage, outgoing: Outgoing, error: KafkaError, *, isolated: bool
    ) -> None:
        mapped = error_of(error, f"Write on topic {outgoing.topic}")
        if isinstance(mapped, FatalError):
            raise mapped
        if not isinstance(mapped, RefusedError):
            self._retry(message, outgoing, mapped)
        elif not isolated:
            # Kafka refuses a whole batch for one bad record. A record in its own batch is
            # refused only if it is bad itself.
            message.isolated = True
            self.produce(message, outgoing)
        elif outgoing.topic != self._dead_letter_topic:
            self._refused(message, outgoing, mapped)
        elif outgoing.value:
            # The topic's size limit is lower than provisioned, so shorten the payload.
            self._shorten(message, outgoing, outgoing.value)
        else:
            self._retry(message, outgoing, mapped)

    def _shorten(self, message: InFlightMessage, outgoing: Outgoing, value: bytes) -> None:
        shorter = Outgoing(outgoing.topic, value[: len(value) // 2], outgoing.key, outgoing.headers)
        self.produce(message, shorter)

    def _retry(self, message: InFlightMessage, outgoing: Outgoing, error: HeadraceError) -> None:
        self._retries.append(_Retry(self._clock() + _RETRY_SECONDS, message, outgoing))
        if isinstance(error, PermanentError):
            # An operator must act, because a topic or a permission is missing.
            text = f"topic {outgoing.topic}: {error}"
            self._held[message] = text
            self._say(self.problem or text)

    def _look_at_held(self) -> None:
        """Check whether the problem is over for all waiting messages."""
        self._held = {message: text for message, text in self._held.items() if not message.done}
        texts = set(self._held.values())
        if self.problem not in texts:
            self._say(min(texts, default=None))

    def _say(self, problem: str | None) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem is None:
            _log.info("Kafka accepts records again")
        else:
            _log.error("Kafka does not accept records, retrying", problem=problem)
