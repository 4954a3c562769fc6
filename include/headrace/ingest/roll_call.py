"""Since when each device has been online or offline, as the bridge knows it."""

from __future__ import annotations

from datetime import datetime

from headrace.models.presence import Presence, PresenceState
from headrace.profile import Profile
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import read_topic

__all__ = ["RollCall", "recorded_presence"]

#: Bounds the memory when ids never come back; a fleet fits many times over.
_MAX_DEVICES = 100_000


class RollCall:
    """Tells news from repetitions.

    The broker repeats retained messages to a new session, and a device says `online` at
    every connection. What only repeats the state that is known leaves its beginning alone.

    Parameters
    ----------
    known
        What Kafka holds from before this bridge started, by device.
    """

    def __init__(self, known: dict[str, Presence]) -> None:
        self._known = known

    def hear(self, device: str, state: PresenceState, now: datetime) -> Presence:
        """Take a device's state down, and return it with its beginning."""
        known = self._known.get(device)
        if known is not None and known.state is state:
            return known
        if len(self._known) >= _MAX_DEVICES:
            self._known.clear()
        heard = self._known[device] = Presence(device, state, now)
        return heard

    def forget(self, device: str) -> None:
        """Strike a device off."""
        self._known.pop(device, None)


def recorded_presence(kafka: Kafka, profile: Profile) -> dict[str, Presence]:
    """Read the status topic: what was last heard of each device, those forgotten left out.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    known: dict[str, Presence] = {}
    for record in read_topic(kafka, profile.topics.status):
        if record.value:
            presence = Presence.from_json(record.value, profile.id_field)
            known[presence.device] = presence
        else:
            known.pop(record.key.decode(), None)
    return known
