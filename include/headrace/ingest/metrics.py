"""Prometheus metrics of the workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

__all__ = ["BridgeMetrics", "SinkMetrics"]

# When a counter began says nothing that the process start time does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BridgeMetrics:
    """What the bridge counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.received = Counter(
            "headrace_bridge_received",
            "Readings taken from the broker, those sent again not counted",
            registry=self.registry,
        )
        self.delivered = Counter(
            "headrace_bridge_delivered", "Records that Kafka has", registry=self.registry
        )
        self.rejected = Counter(
            "headrace_bridge_rejected",
            "Readings that went to the dead letters",
            ["reason"],
            registry=self.registry,
        )
        self.redelivered = Counter(
            "headrace_bridge_redelivered",
            "Messages that the broker sent again and Kafka had or was about to have",
            registry=self.registry,
        )
        self.held_bytes = Gauge(
            "headrace_bridge_held_bytes",
            "Memory of what is on its way to Kafka",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "headrace_bridge_in_flight", "Records on their way to Kafka", registry=self.registry
        )
        self.connected = Gauge(
            "headrace_bridge_connected", "1 while connected to the broker", registry=self.registry
        )
        self.drifting = Gauge(
            "headrace_bridge_drifting_devices",
            "Devices whose clock is off by more than HEADRACE_MAX_CLOCK_DRIFT",
            registry=self.registry,
        )


class SinkMetrics:
    """What the sink counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.written = Counter(
            "headrace_sink_written", "Readings that InfluxDB has taken", registry=self.registry
        )
        self.rejected = Counter(
            "headrace_sink_rejected",
            "Readings that went to the dead letters",
            ["reason"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "headrace_sink_writes_in_flight", "Writes under way", registry=self.registry
        )
        self.paused = Gauge(
            "headrace_sink_paused", "1 while waiting for InfluxDB", registry=self.registry
        )
        self.partitions = Gauge(
            "headrace_sink_partitions", "Partitions of this sink", registry=self.registry
        )
