"""Reads the newest messages of a bridge from Kafka."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Protocol

from headrace.ingest.devices import DeviceLimits
from headrace.ingest.fingerprints import Fingerprint, fingerprint_of
from headrace.ingest.redelivery import MEMORY
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import Offsets, read_topic
from headrace.storage.records import SkippedRecords, own_records

__all__ = ["Starts", "recorded_packets"]


class Starts(Protocol):
    """Provides the offsets at which to start reading a topic."""

    def start_of(self, topic: str) -> Offsets:
        """Return the first offset to read of each partition."""


def recorded_packets(
    kafka: Kafka,
    starts: Starts,
    topics: Iterable[str],
    bridge: str,
    *,
    devices: DeviceLimits | None = None,
    skipped: SkippedRecords | None = None,
) -> list[Fingerprint]:
    """Read the newest `MEMORY` messages of a bridge from Kafka.

    Parameters
    ----------
    kafka
        The cluster.
    starts
        Provides the offsets at which to start.
    topics
        The topics that the bridge writes readings to, the raw topic first.
    bridge
        Its name.
    devices
        Receives the keys of the raw records, if given, because those devices are not new.
    skipped
        Counts foreign records with the bridge's name, if given.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    name = bridge.encode()
    skipped = SkippedRecords() if skipped is None else skipped

    def parse(record: Record) -> Fingerprint | None:
        return fingerprint_of(record, name)

    def fingerprints() -> Iterator[Fingerprint]:
        for number, topic in enumerate(topics):
            records = read_topic(kafka, topic, starts.start_of(topic), buffer_kilobytes=4 * 1024)
            if number == 0 and devices is not None:
                records = _recall_devices(records, devices)
            for fingerprint in own_records(records, parse, skipped):
                if fingerprint is not None:
                    yield fingerprint

    return heapq.nlargest(MEMORY, fingerprints())


def _recall_devices(records: Iterable[Record], devices: DeviceLimits) -> Iterator[Record]:
    """Yield records and accept their devices."""
    for record in records:
        devices.recall(record.key)
        yield record
