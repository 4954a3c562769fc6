"""Reads what Kafka already holds of a bridge's session, before any message is processed.

The broker sends again what was not acknowledged. Kafka may hold some of it already: from
this bridge before a restart, or from another process that used the same session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Protocol

from headrace.ingest.devices import DeviceLimits
from headrace.ingest.presence import recorded_presence
from headrace.ingest.redelivery import (
    MEMORY,
    Bookmarks,
    Fingerprint,
    RecentPackets,
    recorded_packets,
)
from headrace.models.presence import Presence
from headrace.profile import Profile
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import Offsets
from headrace.storage.records import SkippedRecords

__all__ = ["KafkaRecall", "Recall"]


class Recall(Protocol):
    """Reads what Kafka holds of a session, and tells the bridge's parts of it."""

    def read(self) -> int:
        """Read what was added since the last call, and return how many messages that is."""

    def apply(self, *, resumed: bool) -> None:
        """Recognise from now on exactly what was read; nothing if the session is new."""


class KafkaRecall:
    """Reads a bridge's newest records: all of them once, then only what was added.

    Parameters
    ----------
    kafka
        The cluster.
    bookmarks
        Where to begin to read.
    profile
        The kind of device.
    bridge
        Name of the bridge.
    recent
        Recognises redeliveries.
    presence
        Last known state of each device; filled in place.
    devices
        Accepts the devices that Kafka has records of: they are not new.
    skipped
        Counts the records that Headrace did not write.
    recalled
        Called when `recent` was told what Kafka holds.
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
        """Read what was added since the last call, and return how many messages that is.

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
        """Where to begin to read a topic."""
        start = self._bookmarks.start_of(topic)
        for partition, offset in self._read_to.get(topic, {}).items():
            start[partition] = max(start.get(partition, 0), offset)
        return start

    def apply(self, *, resumed: bool) -> None:
        """Recognise from now on exactly what was read; nothing if the session is new."""
        # The numbers and the stamps continue, also in a new session.
        self._recent.reset(self._known)
        self._recalled()
        if not resumed:
            # Packet ids of another session say nothing about this one.
            self._recent.forget()
            self._known.clear()

    def _add(self, found: Iterable[Fingerprint]) -> int:
        new = set(found) - self._known
        self._known |= new
        if len(self._known) > MEMORY:
            self._known = set(nlargest(MEMORY, self._known))
        return len(new)
