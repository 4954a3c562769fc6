"""Reports metrics and health of the bridge once a second."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime

from headrace.ingest.bookmarks import Bookmarks
from headrace.ingest.health import Health
from headrace.ingest.inflight import InFlight
from headrace.ingest.intake import Intake
from headrace.ingest.metrics import BridgeMetrics
from headrace.models.foreign import ForeignReason
from headrace.models.window import rfc3339
from headrace.storage.records import SkippedRecords

__all__ = ["BridgeMonitor"]

_TICK_SECONDS = 1.0
#: Kafka is reported as unavailable if it confirms nothing for this long.
_SILENCE_SECONDS = 5.0


class BridgeMonitor:
    """Saves bookmarks, and keeps metrics and ``/healthz`` up to date.

    Parameters
    ----------
    intake
        Provides clock differences and records that Kafka does not accept.
    in_flight
        Messages between the broker and Kafka.
    bookmarks
        Offsets of the bridge's newest acknowledged messages.
    metrics, health
        Targets of the report.
    skipped
        Counts foreign records, if given.
    """

    def __init__(
        self,
        intake: Intake,
        in_flight: InFlight,
        bookmarks: Bookmarks,
        metrics: BridgeMetrics,
        health: Health,
        skipped: SkippedRecords | None = None,
    ) -> None:
        self._intake = intake
        self._in_flight = in_flight
        self._bookmarks = bookmarks
        self._skipped = SkippedRecords() if skipped is None else skipped
        self._skipped_counted: Counter[tuple[str, ForeignReason]] = Counter()
        self._metrics = metrics
        self._health = health
        self._next_tick = 0.0
        self._counted = 0
        self._progress = time.monotonic()

    def tick(self, *, connected: bool) -> None:
        """Record that the loop runs; report if a second has passed.

        Parameters
        ----------
        connected
            Whether the bridge is connected and processes messages. Otherwise an empty buffer
            does not show that Kafka is available.
        """
        self._health.beat()
        if time.monotonic() >= self._next_tick:
            self.report(connected=connected)

    def report(self, *, connected: bool) -> None:
        """Report now."""
        self._next_tick = time.monotonic() + _TICK_SECONDS
        in_flight = self._in_flight
        self._bookmarks.save(in_flight.acknowledged_to)
        delivered = in_flight.delivered - self._counted
        self._counted = in_flight.delivered
        self._metrics.delivered.inc(delivered)
        self._judge_kafka(delivered, connected=connected)
        self._metrics.held_bytes.set(in_flight.bytes)
        self._metrics.in_flight.set(in_flight.count)
        self._metrics.connected.set(connected)
        drifting = self._intake.drifting()
        self._metrics.drifting.set(len(drifting))
        self._health.note("drifting", {name: drift.seconds for name, drift in drifting.items()})
        self._count_skipped()
        jump = self._intake.last_jump
        if jump is not None:
            at = rfc3339(datetime.fromtimestamp(jump.at_ns / 1e9, UTC))
            self._health.note("clock_jump", {"seconds": jump.seconds, "at": at})

    def _count_skipped(self) -> None:
        new = self._skipped.counts - self._skipped_counted
        for (topic, reason), number in new.items():
            self._metrics.skipped.labels(topic, reason.value).inc(number)
        self._skipped_counted += new

    def _judge_kafka(self, delivered: int, *, connected: bool) -> None:
        now = time.monotonic()
        waiting = self._in_flight.count
        problem = self._intake.problem
        if problem is not None:
            # Other records can still be delivered.
            self._health.problem("kafka", problem)
        elif delivered or not waiting:
            self._progress = now
            if delivered or connected:
                self._health.fine("kafka")
        elif now - self._progress > _SILENCE_SECONDS:
            self._health.problem("kafka", "Kafka confirms nothing; the broker keeps what comes")
