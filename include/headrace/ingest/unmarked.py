"""Recognises redelivered messages without the flag DUP.

MQTT requires DUP, and most brokers set it. Without it, a redelivered message looks like a new one
with the same packet id and payload. A broker that reuses low ids also sends such new messages,
because a device can send the same reading twice. So the bridge must know whether the broker sets
DUP. If it does not know, it leaves a message unacknowledged and reconnects. The broker must then
redeliver that message, with or without DUP.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from headrace.errors import ServerUnavailableError
from headrace.ingest.redelivery import RecentPackets
from headrace.storage.mqtt_stream import DUP, Publish

__all__ = ["EXCEEDED", "UNMARKED", "UnmarkedRedeliveries"]

_log = structlog.get_logger(__name__)

#: Description of the limit and its consequence.
UNMARKED = (
    "the broker sends messages again without the flag DUP: the bridge recognises them by packet "
    "id and payload. A reading without a time of its own that follows a reconnect and equals an "
    "earlier one byte for byte may be taken for it"
)
#: mochi-mqtt 2.7.9 does so if more messages wait than Receive Maximum.
EXCEEDED = (
    "the broker sends more unacknowledged messages than Receive Maximum allows: it may send some "
    "of them twice, and lose some when the connection breaks. Set HEADRACE_MQTT_RECEIVE_MAXIMUM to "
    "at least the number of messages that the broker queues for a session"
)


class UnmarkedRedeliveries:
    """Finds messages that are redelivered without DUP at the start of a resumed connection.

    Parameters
    ----------
    recent
        Recognises messages by packet id and payload.
    window
        Maximum number of unacknowledged messages. At most this many can be redelivered, and
        they are the newest.

    Attributes
    ----------
    marks
        Whether the broker sets DUP; `None` if unknown.
    question
        Error that ends the connection to find out whether the broker sets DUP.
    """

    def __init__(self, recent: RecentPackets, window: int) -> None:
        self._recent = recent
        self._window = window
        self.marks: bool | None = None
        self.exceeds = False
        self.question: ServerUnavailableError | None = None
        self._left = 0
        self._answered = False
        self._newest_before: int | None = None
        self._seen: set[int] = set()
        self._unanswered: frozenset[int] = frozenset()
        #: Packet ids of the message that was left unacknowledged and of those after it.
        self._asked: int | None = None
        self._passed_over: set[int] = set()

    def connected(self, unanswered: Iterable[int], *, resumed: bool) -> None:
        """Record the start of a connection.

        Parameters
        ----------
        unanswered
            Packet ids of messages of the last connection that were not acknowledged.
        resumed
            Whether the broker still had the session. Otherwise nothing is redelivered.
        """
        self._left = self._window if resumed else 0
        self._newest_before = None
        self._answered = False
        self._seen.clear()
        self._unanswered = frozenset(unanswered)
        self.question = None
        if not resumed:
            self._asked = None
            self._passed_over.clear()

    def acknowledged(self) -> None:
        """Note that a message was acknowledged.

        mosquitto 2.0 respects Receive Maximum only until the first acknowledgement, with no harm.
        """
        self._answered = True

    def received(self, unacknowledged: int) -> None:
        """Note how many messages of the connection are not acknowledged."""
        if unacknowledged > self._window and not self._answered:
            self.exceeds = True

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """What the broker does differently from MQTT 5, with the consequences."""
        found = (UNMARKED,) if self.marks is False else ()
        return (*found, EXCEEDED) if self.exceeds else found

    @property
    def active(self) -> bool:
        """Whether messages must pass through `sort_out`."""
        return self._left > 0 and (self.marks is not True or bool(self._passed_over))

    def sort_out(self, published: list[Publish]) -> list[Publish]:
        """Set the flag DUP where it is missing.

        Returns
        -------
        list
            The messages to process. If there is a `question`, they lack those that the broker must
            redeliver.
        """
        if self._newest_before is None:
            # Kafka was read after the connection was established.
            self._newest_before = self._recent.sequence
        sorted_out: list[Publish] = []
        for number, (flags, packet_id, topic, payload) in enumerate(published):
            if packet_id and self._left > 0:
                self._left -= 1
                flags = self._judge(flags, packet_id, payload)  # noqa: PLW2901
            if self.question is not None:
                self._passed_over = {item[1] for item in published[number:] if not item[0] & DUP}
                break
            sorted_out.append((flags, packet_id, topic, payload))
        if self._left <= 0:
            self._asked = None
            self._passed_over.clear()
        return sorted_out

    def _judge(self, flags: int, packet_id: int, payload: bytes) -> int:
        """Return the correct flags."""
        first = packet_id not in self._seen
        self._seen.add(packet_id)
        if packet_id == self._asked:
            self._asked = None
            self._learn(marks=bool(flags & DUP))
        if flags & DUP:
            self._learn(marks=True)
            # The first delivery was new, so the broker sent it without DUP although it sets DUP.
            return flags & ~DUP if first and packet_id in self._passed_over else flags
        if not first or not self._may_be_again(packet_id, payload):
            return flags
        if packet_id in self._unanswered:
            # A broker must not use this id for another message.
            self._learn(marks=False)
        if self.marks is None:
            self._ask(packet_id)
        return flags | DUP if self.marks is False else flags

    def _may_be_again(self, packet_id: int, payload: bytes) -> bool:
        if self._recent.find(packet_id, payload) is None:
            return False
        newest = self._newest_before or 0
        return 0 <= newest - self._recent.sequence_of(packet_id) < self._window

    def _ask(self, packet_id: int) -> None:
        self._asked = packet_id
        self.question = ServerUnavailableError(
            "the bridge connects again to find out whether the broker marks messages that it "
            "sends again (flag DUP)"
        )

    def _learn(self, *, marks: bool) -> None:
        if self.marks is None:
            _log.info("learned whether the broker sets DUP", sets_dup=marks)
        if marks or self.marks is None:
            self.marks = marks
