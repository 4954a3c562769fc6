"""Prometheus metrics of the workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

__all__ = ["BridgeMetrics", "SinkMetrics"]

# No `_created` metrics: the start time of the process is already a metric.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BridgeMetrics:
    """Metrics of the bridge."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.received = Counter(
            "headrace_bridge_received",
            "Readings received from the broker, without redeliveries",
            registry=self.registry,
        )
        self.delivered = Counter(
            "headrace_bridge_delivered", "Records that Kafka has confirmed", registry=self.registry
        )
        self.rejected = Counter(
            "headrace_bridge_rejected",
            "Readings that became dead letters",
            ["reason"],
            registry=self.registry,
        )
        self.redelivered = Counter(
            "headrace_bridge_redelivered",
            "Redelivered messages that the bridge had received before",
            registry=self.registry,
        )
        self.ignored = Counter(
            "headrace_bridge_ignored",
            "Messages without content to store, by kind",
            ["kind"],
            registry=self.registry,
        )
        self.skipped = Counter(
            "headrace_bridge_skipped_records",
            "Records on our topics that Headrace did not write",
            ["topic", "reason"],
            registry=self.registry,
        )
        self.clock_jumps = Counter(
            "headrace_bridge_clock_jumps",
            "Jumps of the system clock by more than a second",
            registry=self.registry,
        )
        self.devices = Gauge(
            "headrace_bridge_devices",
            "Device ids that are accepted, at most HEADRACE_MAX_DEVICES",
            registry=self.registry,
        )
        self.held_bytes = Gauge(
            "headrace_bridge_held_bytes",
            "Memory of records that Kafka has not confirmed",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "headrace_bridge_in_flight",
            "Records that Kafka has not confirmed",
            registry=self.registry,
        )
        self.connected = Gauge(
            "headrace_bridge_connected", "1 while connected to the broker", registry=self.registry
        )
        self.drifting = Gauge(
            "headrace_bridge_drifting_devices",
            "Devices whose clock is wrong by more than HEADRACE_MAX_CLOCK_DRIFT",
            registry=self.registry,
        )


class SinkMetrics:
    """Metrics of the sink."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.written = Counter(
            "headrace_sink_written", "Readings that InfluxDB has accepted", registry=self.registry
        )
        self.rejected = Counter(
            "headrace_sink_rejected",
            "Readings that became dead letters",
            ["reason"],
            registry=self.registry,
        )
        self.lost = Counter(
            "headrace_sink_lost",
            "Offsets whose records Kafka deleted before they were written",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "headrace_sink_writes_in_flight", "Pending writes", registry=self.registry
        )
        self.paused = Gauge(
            "headrace_sink_paused", "1 while waiting for InfluxDB", registry=self.registry
        )
        self.partitions = Gauge(
            "headrace_sink_partitions", "Partitions of this sink", registry=self.registry
        )
