"""How an installation is doing: asked of every component, in one object."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from headrace.errors import HeadraceError
from headrace.ingest.presence import recorded_presence
from headrace.models.presence import PresenceState
from headrace.models.window import rfc3339
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.stages.heal import expected_windows, missing_windows
from headrace.stages.ingest_progress import sink_lag
from headrace.stages.markers import read_markers
from headrace.stages.pipeline import Pipeline
from headrace.storage.influx import Influx, influx_address
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import count_between, count_records, held_records

__all__ = ["Status", "collect_status"]

_CALL_SECONDS = 5.0
#: A window that closed less long ago is not missing yet.
_SETTLING = timedelta(minutes=1)
_UP = "up"


@dataclass
class Status:
    """What ``headrace status --json`` prints.

    A number that could not be had is `None`, and the component it comes from is not up.
    """

    components: dict[str, str] = field(default_factory=dict)
    mqtt: dict[str, int | None] = field(default_factory=lambda: {"received": None})
    kafka: dict[str, int | None] = field(
        default_factory=lambda: dict.fromkeys(("raw", "dead_letter", "downsampled", "alarms"))
    )
    sink: dict[str, int | None] = field(default_factory=lambda: {"written": None, "lag": None})
    windows: dict[str, Any] = field(default_factory=lambda: {"latest": None, "missing": None})
    devices: dict[str, Any] = field(
        default_factory=lambda: {"online": None, "offline": [], "drifting": {}}
    )
    lag_allowed: int = 0

    @property
    def healthy(self) -> bool:
        """Every component answers, no window is missing, the sink keeps up."""
        lag = self.sink["lag"]
        return (
            all(state == _UP for state in self.components.values())
            and self.windows["missing"] == 0
            and lag is not None
            and lag <= self.lag_allowed
        )

    def as_dict(self) -> dict[str, Any]:
        """The object that is printed."""
        return {
            "healthy": self.healthy,
            "mqtt": self.mqtt,
            "kafka": self.kafka,
            "sink": self.sink,
            "windows": self.windows,
            "devices": self.devices,
            "components": {name: {"state": state} for name, state in self.components.items()},
        }


def collect_status(settings: Settings, profile: Profile) -> Status:
    """Ask every component. Whatever does not answer is reported, not raised."""
    status = Status()
    kafka = Kafka.from_settings(settings)
    parts: dict[str, Callable[[], None]] = {
        "mosquitto": lambda: _connects(settings.mqtt_host, settings.mqtt_port),
        "kafka": lambda: _ask_kafka(status, profile, kafka),
        "influxdb": lambda: _ask_influx(status, settings, profile, kafka),
        "bridge": lambda: _ask_bridge(status, settings),
        "sink": lambda: _ask_sink(status, settings),
        "mailbox": lambda: _connects(settings.smtp_host, settings.smtp_port),
    }
    with ThreadPoolExecutor(len(parts) + 1) as pool:
        answers = {name: pool.submit(_outcome, part) for name, part in parts.items()}
        airflow = pool.submit(_airflow_parts, settings)
        status.components = {name: answer.result() for name, answer in answers.items()}
        status.components.update(airflow.result())
    return status


def _outcome(part: Callable[[], None]) -> str:
    try:
        part()
    except (HeadraceError, OSError, urllib3.exceptions.HTTPError, ValueError, KeyError) as exc:
        return str(exc) or type(exc).__name__
    return _UP


def _connects(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=_CALL_SECONDS):
        pass


def _ask_kafka(status: Status, profile: Profile, kafka: Kafka) -> None:
    topics = profile.topics
    now = datetime.now(UTC)
    kafka.check_connection()
    status.kafka["raw"] = held_records(kafka, topics.raw)
    status.kafka["dead_letter"] = held_records(kafka, topics.dead_letter)
    status.kafka["downsampled"] = count_records(kafka, topics.downsampled)
    status.kafka["alarms"] = count_records(kafka, topics.alarms)
    status.sink["lag"] = sink_lag(kafka, topics.raw, profile.sink_group)
    consumer = kafka.consumer("headrace-reader")
    try:
        status.lag_allowed = count_between(consumer, topics.raw, now - timedelta(minutes=1), now)
    finally:
        consumer.close()
    presence = recorded_presence(kafka, profile)
    offline = [item for item in presence.values() if item.state is PresenceState.OFFLINE]
    status.devices["online"] = len(presence) - len(offline)
    status.devices["offline"] = [
        {"device": item.device, "since": rfc3339(item.since)}
        for item in sorted(offline, key=lambda item: (item.since, item.device))
    ]


def _ask_influx(status: Status, settings: Settings, profile: Profile, kafka: Kafka) -> None:
    now = datetime.now(UTC)
    begin = now - settings.heal_horizon
    with Influx(influx_address(settings, "airflow")) as influx:
        pipeline = Pipeline(profile, settings.flux_dir, influx, kafka, settings.raw_retention)
        # Also those that closed just now: one of them may be the newest computed.
        closed = expected_windows(begin, now, timedelta(0), pipeline)
        due = expected_windows(begin, now, _SETTLING, pipeline)
        markers = read_markers(closed, pipeline) if closed else {}
    computed = [start for start, marker in markers.items() if marker.published >= 0]
    status.windows["latest"] = rfc3339(max(computed)) if computed else None
    missing = missing_windows(due, settings.installed_at, markers) if due else []
    status.windows["missing"] = len(missing)


def _ask_bridge(status: Status, settings: Settings) -> None:
    base = f"http://{settings.bridge_host}:{settings.bridge_metrics_port}"
    report = _health_report(base)
    status.devices["drifting"] = report.get("drifting", {})
    status.mqtt["received"] = _metric(base, "headrace_bridge_received")
    _complain_unless_healthy(report)


def _ask_sink(status: Status, settings: Settings) -> None:
    base = f"http://{settings.sink_host}:{settings.sink_metrics_port}"
    report = _health_report(base)
    status.sink["written"] = _metric(base, "headrace_sink_written")
    _complain_unless_healthy(report)


def _health_report(base: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(_get(f"{base}/healthz"))
    return report


def _complain_unless_healthy(report: dict[str, Any]) -> None:
    if report["healthy"]:
        return
    problems = [
        f"{name}: {condition['state']}"
        for name, condition in report["conditions"].items()
        if condition["state"] != "fine"
    ]
    raise ValueError("; ".join(problems) or f"its loop is {report['loop']}")


def _metric(base: str, name: str) -> int:
    for family in text_string_to_metric_families(_get(f"{base}/metrics").decode()):
        if family.name == name:
            return int(family.samples[0].value)
    msg = f"{base}/metrics has no {name}"
    raise ValueError(msg)


def _airflow_parts(settings: Settings) -> dict[str, str]:
    url = f"http://{settings.airflow_host}:{settings.airflow_port}/api/v2/monitor/health"
    names = {
        "metadatabase": "postgres",
        "scheduler": "airflow-scheduler",
        "dag_processor": "airflow-dag-processor",
        "triggerer": "airflow-triggerer",
    }
    try:
        parts = json.loads(_get(url))
    except (OSError, urllib3.exceptions.HTTPError, ValueError) as exc:
        unknown = "unknown: the api-server does not answer"
        return {"airflow-api-server": str(exc), **dict.fromkeys(names.values(), unknown)}
    states = {"airflow-api-server": _UP}
    for part, name in names.items():
        state = parts.get(part, {}).get("status")
        states[name] = _UP if state == "healthy" else str(state or "does not run")
    return states


def _get(url: str) -> bytes:
    response = urllib3.request(
        "GET", url, timeout=_CALL_SECONDS, retries=urllib3.Retry(0, redirect=2)
    )
    return response.data
