"""Reads the records of a bridge's session from Kafka before any message is processed.

The broker redelivers unacknowledged messages. Some of them can already be in Kafka, from this
bridge before a restart or from another process with the same session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Protocol

from headrace.ingest.bookmarks import Bookmarks
from headrace.ingest.devices import DeviceLimits
from headrace.ingest.fingerprints import Fingerprint
from headrace.ingest.presence import recorded_presence
from headrace.ingest.recorded_packets import recorded_packets
from headrace.ingest.redelivery import MEMORY, RecentPackets
from headrace.models.presence import Presence
from headrace.profile import Profile
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import Offsets
from headrace.storage.records import SkippedRecords

__all__ = ["KafkaRecall", "Recall"]


class Recall(Protocol):
    """Reads the records of a session from Kafka and passes them to the parts of the bridge."""

    def read(self) -> int:
        """Read the records added since the last call; return their number."""

    def apply(self, *, resumed: bool) -> None:
        """Recognise redeliveries of the records that were read; none if the session is new."""


class KafkaRecall:
    """Reads a bridge's newest records: all of them the first time, then only new ones.

    Parameters
    ----------
    kafka
        The cluster.
    bookmarks
        Offsets at which to start reading.
    profile
        The kind of device.
    bridge
        Id of the bridge.
    recent
        Recognises redeliveries.
    presence
        Last known state of each device, updated in place.
    devices
        Accepts the devices with records in Kafka, which are not new.
    skipped
        Counts foreign records.
    recalled
        Called after `recent` is updated.
    """

    def __init__(
        self,
        kafka: Kafka,
        bookmarks: Bookmarks,
        profile: Profile,
        bridge: str,
        recent: RecentPackets,
        presence: dict[str, Presence],
        devices: DeviceLimits,
        skipped: SkippedRecords,
        recalled: Callable[[], None] = lambda: None,
    ) -> None:
        self._kafka = kafka
        self._bookmarks = bookmarks
        self._profile = profile
        self._topics = (profile.topics.raw, profile.topics.dead_letter)
        self._bridge = bridge
        self._recent = recent
        self._presence = presence
        self._devices = devices
        self._recalled = recalled
        self._skipped = skipped
        self._read_to: dict[str, Offsets] = {}
        self._known: set[Fingerprint] = set()

    def read(self) -> int:
        """Read the records added since the last call; return their number.

        Raises
        ------
        HeadraceError
            If Kafka does not answer, or lacks a topic.
        """
        if not self._read_to:
            self._kafka.check_connection()
            self._presence.update(recorded_presence(self._kafka, self._profile, self._skipped))
            for device in self._presence:
                self._devices.recall(device.encode())
        ends = {topic: self._bookmarks.end_of(topic) for topic in self._topics}
        found = recorded_packets(
            self._kafka,
            self,
            self._topics,
            self._bridge,
            devices=self._devices,
            skipped=self._skipped,
        )
        self._read_to = ends
        return self._add(found)

    def start_of(self, topic: str) -> Offsets:
        """Return the offsets at which to start reading a topic."""
        start = self._bookmarks.start_of(topic)
        for partition, offset in self._read_to.get(topic, {}).items():
            start[partition] = max(start.get(partition, 0), offset)
        return start

    def apply(self, *, resumed: bool) -> None:
        """Recognise redeliveries of the records that were read; none if the session is new."""
        # Numbers and time stamps continue, even in a new session.
        self._recent.reset(self._known)
        self._recalled()
        if not resumed:
            # Packet ids of an earlier session are not comparable.
            self._recent.forget()
            self._known.clear()

    def _add(self, found: Iterable[Fingerprint]) -> int:
        new = set(found) - self._known
        self._known |= new
        if len(self._known) > MEMORY:
            self._known = set(nlargest(MEMORY, self._known))
        return len(new)
