"""Reads from Kafka which messages of a bridge it holds."""

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
    """Says where to begin to read a topic."""

    def start_of(self, topic: str) -> Offsets:
        """First offset to read of each partition."""


def recorded_packets(
    kafka: Kafka,
    starts: Starts,
    topics: Iterable[str],
    bridge: str,
    *,
    devices: DeviceLimits | None = None,
    skipped: SkippedRecords | None = None,
) -> list[Fingerprint]:
    """Read which messages of a bridge Kafka holds, the newest `MEMORY` of them.

    Parameters
    ----------
    kafka
        The cluster.
    starts
        Where to begin to read.
    topics
        The topics that the bridge writes readings to, the raw topic first.
    bridge
        Its name.
    devices
        Told the keys of the raw records, if given: those devices are not new.
    skipped
        Counts the records that bear the bridge's name and are not its own, if given.

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
    """Pass records on, and accept their devices."""
    for record in records:
        devices.recall(record.key)
        yield record
