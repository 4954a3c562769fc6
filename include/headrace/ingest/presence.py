"""Tracks since when each device has been online or offline."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.presence import Presence, PresenceState
from headrace.profile import Profile
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic
from headrace.storage.presence_records import read_presence
from headrace.storage.records import SkippedRecords, own_records

__all__ = ["PresenceRegistry", "recorded_presence"]

#: Maximum number of devices, which limits the memory. For other devices, `since` is the time of
#: the newest message.
_MAX_DEVICES = 100_000


class PresenceRegistry:
    """Distinguishes a new state of a device from a repeated one.

    The broker repeats retained messages to a new session, and a device sends `online` at every
    connection. A repeated state keeps its start time.

    Parameters
    ----------
    known
        Last known state of each device, from Kafka. It is updated in place.
    """

    def __init__(self, known: dict[str, Presence]) -> None:
        self._known = known

    def update(self, device: str, state: PresenceState, now: datetime) -> Presence:
        """Set a device's state; return it with its start time."""
        known = self._known.get(device)
        if known is not None and known.state is state:
            return known
        presence = Presence(device, state, now)
        if known is not None or len(self._known) < _MAX_DEVICES:
            self._known[device] = presence
        return presence

    def forget(self, device: str) -> None:
        """Remove a device."""
        self._known.pop(device, None)


def recorded_presence(
    kafka: Kafka, profile: Profile, skipped: SkippedRecords | None = None
) -> dict[str, Presence]:
    """Read the last state of each device from the status topic.

    Parameters
    ----------
    kafka
        The cluster.
    profile
        The kind of device.
    skipped
        Counts foreign records, if given.

    Returns
    -------
    dict
        States by device id, without cleared ones and for a limited number of devices.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    known: dict[str, Presence] = {}
    for device, presence in _changes(
        kafka, profile, SkippedRecords() if skipped is None else skipped
    ):
        if presence is None:
            known.pop(device, None)
        elif device in known or len(known) < _MAX_DEVICES:
            known[device] = presence
    return known


def _changes(
    kafka: Kafka, profile: Profile, skipped: SkippedRecords
) -> Iterator[tuple[str, Presence | None]]:
    def parse(record: Record) -> tuple[str, Presence | None]:
        return parse_record(record.key, record.value, profile.id_field)

    return own_records(read_topic(kafka, profile.topics.status), parse, skipped)


def parse_record(key: bytes, value: bytes, id_field: str) -> tuple[str, Presence | None]:
    """Parse a record of the status topic: the device, and its state or `None` if cleared.

    Raises
    ------
    ForeignRecordError
        If Headrace did not write the record.
    """
    if value:
        presence = read_presence(value, id_field, key)
        return presence.device, presence
    try:
        return key.decode(), None
    except UnicodeDecodeError:
        raise ForeignRecordError(ForeignReason.WRONG_KEY, "the key is not UTF-8") from None
