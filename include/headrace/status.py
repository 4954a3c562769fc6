"""Collects the state of an installation from all components at once, with a time limit."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import urllib3
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from headrace.certificates.served import certificate_state
from headrace.errors import HeadraceError, ServerUnavailableError
from headrace.kafka_status import ask_kafka, ask_presence
from headrace.models.window import rfc3339
from headrace.profile import Profile
from headrace.settings import Settings
from headrace.stages.factory import make_pipeline
from headrace.stages.heal import expected_windows, missing_windows
from headrace.stages.ranges import installed_at_problem
from headrace.storage.broker_statistics import read_broker_statistics
from headrace.storage.influx import Influx, influx_address
from headrace.storage.kafka import Kafka
from headrace.storage.mqtt_address import MqttAddress

__all__ = ["Status", "collect_status"]

#: Time limit for the answer of a component.
_LIMIT_SECONDS = 2.0
_CALL_SECONDS = 1.8
#: Time after a window's end before it counts as missing.
_SETTLING = timedelta(minutes=1)
_UP = "up"
#: Next step for each component that is not up.
_NEXT_STEPS = {
    "mosquitto": "start the broker, or check HEADRACE_MQTT_HOST and HEADRACE_MQTT_PORT",
    "kafka": "start Kafka, or check HEADRACE_KAFKA_BOOTSTRAP",
    "influxdb": "start InfluxDB, or check HEADRACE_INFLUX_HOST and HEADRACE_INFLUX_PORT",
    "bridge": "see the bridge's log; start it with `headrace bridge` if it does not run",
    "sink": "see the sink's log; start it with `headrace sink` if it does not run",
    "mailbox": "start the mail server, or check HEADRACE_SMTP_HOST and HEADRACE_SMTP_PORT",
}
_AIRFLOW_STEP = "see the logs of Airflow; alerts, rows and alarms wait for it"

#: A section of the status and its values.
Answer = dict[str, dict[str, Any]]


@dataclass
class Status:
    """Content of ``headrace status --json``.

    An unknown number is `None`; then its component is not up.

    Parameters
    ----------
    components
        ``up`` or a problem, by component.
    mqtt, kafka, sink, windows, devices
        Numbers. Those of Kafka count offsets, which include transaction markers.
    lost
        Records that Kafka deleted before the sink wrote them: the newest of each partition.
    problems
        Problems, each with the next step. A healthy installation has none.
    notices
        Information for operators that does not make the installation unhealthy.
    """

    components: dict[str, str] = field(default_factory=dict)
    mqtt: dict[str, Any] = field(
        default_factory=lambda: {"received": None, "dropped": None, "shortfalls": []}
    )
    kafka: dict[str, Any] = field(
        default_factory=lambda: {
            **dict.fromkeys(("raw", "dead_letter", "downsampled", "alarms")),
            "skipped": {},
            "skipped_by_bridge": {},
        }
    )
    sink: dict[str, Any] = field(
        default_factory=lambda: {"written": None, "lag": None, "lag_allowed": None, "lost": []}
    )
    windows: dict[str, Any] = field(default_factory=lambda: {"latest": None, "missing": None})
    devices: dict[str, Any] = field(
        default_factory=lambda: {"online": None, "offline": [], "drifting": {}, "complete": None}
    )
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether every component answers, no window is missing, and nothing is lost."""
        return not self.problems

    def add(self, answer: Answer) -> None:
        """Add the answer of a component."""
        for section, values in answer.items():
            part: dict[str, Any] = getattr(self, section)
            for name, value in values.items():
                if isinstance(value, dict) and isinstance(part.get(name), dict):
                    part[name] = {**part[name], **value}
                else:
                    part[name] = value

    def as_dict(self) -> dict[str, Any]:
        """Return the object for JSON."""
        return {
            "healthy": self.healthy,
            "problems": self.problems,
            "notices": self.notices,
            "mqtt": self.mqtt,
            "kafka": self.kafka,
            "sink": self.sink,
            "windows": self.windows,
            "devices": self.devices,
            "components": {name: {"state": state} for name, state in self.components.items()},
        }


def collect_status(settings: Settings, profile: Profile) -> Status:
    """Ask every component; report those that do not answer in time."""
    status = Status()
    kafka = Kafka.from_settings(settings)
    limit = timedelta(seconds=_CALL_SECONDS)
    parts: dict[str, Callable[[], Answer]] = {
        "mosquitto": lambda: _connects(settings.mqtt_host, settings.mqtt_port),
        "kafka": lambda: ask_kafka(profile, kafka, limit),
        "influxdb": lambda: _ask_influx(settings, profile, kafka),
        "bridge": lambda: _ask_bridge(settings),
        "sink": lambda: _ask_sink(settings),
        "mailbox": lambda: _connects(settings.smtp_host, settings.smtp_port),
    }
    others: dict[str, Callable[[], Answer]] = {
        "broker": lambda: _ask_broker(settings, limit),
        "devices": lambda: ask_presence(profile, kafka, limit),
        "airflow": lambda: {"components": _airflow_parts(settings)},
    }
    answers = _answers({**parts, **others})
    for name, answer in answers.items():
        if isinstance(answer, str):
            if name in parts:
                status.components[name] = answer
        else:
            if name in parts:
                status.components[name] = _UP
            status.add(answer)
    if isinstance(answers["airflow"], str):
        status.components["airflow-api-server"] = answers["airflow"]
    _judge(status, settings)
    return status


def _answers(parts: dict[str, Callable[[], Answer]]) -> dict[str, Answer | str]:
    """Ask all components at once; do not wait for answers after the limit."""
    answers: dict[str, Answer | str] = {}
    # Threads of a pool would keep the process alive until all of them end.
    threads = []
    for name, part in parts.items():

        def ask(name: str = name, part: Callable[[], Answer] = part) -> None:
            answers[name] = _outcome(part)

        thread = threading.Thread(target=ask, name=name, daemon=True)
        thread.start()
        threads.append(thread)
    deadline = time.monotonic() + _LIMIT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    missing = f"no answer within {_LIMIT_SECONDS:.0f} s"
    return {name: answers.get(name, missing) for name in parts}


def _outcome(part: Callable[[], Answer]) -> Answer | str:
    try:
        return part()
    except (HeadraceError, OSError, ValueError, KeyError) as exc:
        return str(exc) or type(exc).__name__


def _judge(status: Status, settings: Settings) -> None:
    """Add problems with their next steps."""
    problems = status.problems
    for name, state in status.components.items():
        if state != _UP and not state.startswith("unknown"):
            stop = "" if state.endswith((".", "?")) else "."
            problems.append(f"{name}: {state}{stop} Next: {_NEXT_STEPS.get(name, _AIRFLOW_STEP)}")
    now = datetime.now(UTC)
    problem = installed_at_problem(settings.installed_at, now)
    if problem is not None:
        problems.append(problem)
    elif status.windows["missing"]:
        problems.append(
            f"{status.windows['missing']} windows are missing. Next: check that Airflow runs and "
            "its DAGs are not paused; the reconcile DAG computes missing windows"
        )
    lag, allowed = status.sink["lag"], status.sink["lag_allowed"]
    if lag is not None and lag > (allowed or 0):
        problems.append(
            f"the sink is {lag} records behind, more than arrived in the last minute. Next: check "
            "the sink and InfluxDB; if both are well, start a second sink"
        )
    recent_ms = (now - timedelta(days=1)).timestamp() * 1000
    for item in status.sink["lost"]:
        sentence = (
            f"Kafka deleted records of {item['topic']} partition {item['partition']}, offsets "
            f"{item['start']} to {item['stop'] - 1}, before they were written: {item['detail']}. "
            "Next: keep the sink running or raise HEADRACE_KAFKA_RETENTION; `headrace audit` "
            "lists all losses"
        )
        (problems if item["recorded_ms"] >= recent_ms else status.notices).append(sentence)
    problem, notice = certificate_state(settings, now)
    problems += [problem] if problem else []
    status.notices += [notice] if notice else []
    _notice(status)


def _notice(status: Status) -> None:
    notices = status.notices
    if status.mqtt["dropped"]:
        notices.append(
            f"the MQTT broker has dropped {status.mqtt['dropped']} messages since it started. "
            "Next: compare `max_queued_messages` and `max_queued_bytes` of the broker with what "
            "your devices send while the bridge is away"
        )
    notices += [f"MQTT broker: {item}" for item in status.mqtt["shortfalls"]]
    if status.mqtt.get("clock_jumps"):
        notices.append(
            f"the clock of the bridge's machine jumped {status.mqtt['clock_jumps']} times since "
            "the bridge started. Next: check its time synchronisation; see `clock jumped` in the "
            "bridge's log"
        )
    # Both can have read the same records.
    skipped = Counter(status.kafka["skipped"]) | Counter(status.kafka["skipped_by_bridge"])
    for topic, number in sorted(skipped.items()):
        notices.append(
            f"{number} records on {topic} are not from Headrace, and were skipped. Next: find "
            "out who writes there; `foreign record skipped` in the logs has their offsets"
        )
    if status.devices["complete"] is False:
        notices.append("the status topic was too long to read in time: devices are not complete")


def _connects(host: str, port: int) -> Answer:
    with socket.create_connection((host, port), timeout=_CALL_SECONDS):
        return {}


def _ask_broker(settings: Settings, limit: timedelta) -> Answer:
    """Read the broker's statistics, which a broker with logins does not publish."""
    statistics = read_broker_statistics(MqttAddress.from_settings(settings), limit)
    return {"mqtt": {"dropped": (statistics or {}).get("dropped")}}


def _ask_influx(settings: Settings, profile: Profile, kafka: Kafka) -> Answer:
    now = datetime.now(UTC)
    begin = now - settings.heal_horizon
    with Influx(influx_address(settings, "airflow")) as influx:
        pipeline = make_pipeline(settings, profile, influx, kafka)
        # Includes windows that have just ended: one of them can be the newest computed window.
        ended = expected_windows(begin, now, timedelta(0), pipeline)
        due = expected_windows(begin, now, _SETTLING, pipeline)
        markers = pipeline.store.markers(ended) if ended else {}
    computed = [start for start, marker in markers.items() if marker.published >= 0]
    missing = missing_windows(due, settings.installed_at, markers) if due else []
    latest = rfc3339(max(computed)) if computed else None
    return {"windows": {"latest": latest, "missing": len(missing)}}


def _ask_bridge(settings: Settings) -> Answer:
    base = settings.bridge_url
    report = _health_report(base)
    metrics = _metrics(base)
    return {
        "devices": {"drifting": report.get("drifting", {})},
        "mqtt": {
            "received": _required(metrics, "headrace_bridge_received", base),
            "shortfalls": list(report.get("shortfalls") or ()),
            "clock_jumps": _total(metrics, "headrace_bridge_clock_jumps"),
        },
        "kafka": {"skipped_by_bridge": _by_topic(metrics, "headrace_bridge_skipped_records")},
        "components": _own_state("bridge", report),
    }


def _ask_sink(settings: Settings) -> Answer:
    base = settings.sink_url
    report = _health_report(base)
    metrics = _metrics(base)
    return {
        "sink": {"written": _required(metrics, "headrace_sink_written", base)},
        "components": _own_state("sink", report),
    }


def _health_report(base: str) -> dict[str, Any]:
    report = json.loads(_get(f"{base}/healthz"))
    if not isinstance(report, dict) or "healthy" not in report:
        msg = f"{base} is not a worker of Headrace"
        raise ValueError(msg)
    return report


def _own_state(name: str, report: dict[str, Any]) -> dict[str, str]:
    """Return the state that a worker reports."""
    if report["healthy"]:
        return {name: _UP}
    problems = [
        f"{condition}: {item['state']}"
        for condition, item in report["conditions"].items()
        if item["state"] != "fine"
    ]
    return {name: "; ".join(problems) or f"its loop is {report['loop']}"}


def _metrics(base: str) -> dict[str, Metric]:
    """Read the counters and gauges of a worker by name."""
    return {
        family.name: family
        for family in text_string_to_metric_families(_get(f"{base}/metrics").decode())
        if family.type in ("counter", "gauge")
    }


def _total(metrics: dict[str, Metric], name: str) -> int:
    """Return a metric, summed over its labels; 0 if the worker does not have it."""
    return sum(int(sample.value) for sample in metrics[name].samples) if name in metrics else 0


def _by_topic(metrics: dict[str, Metric], name: str) -> dict[str, int]:
    """Return a metric by its label ``topic``, summed over other labels."""
    totals: Counter[str] = Counter()
    for sample in metrics[name].samples if name in metrics else ():
        totals[sample.labels["topic"]] += int(sample.value)
    return dict(totals)


def _required(metrics: dict[str, Metric], name: str, base: str) -> int:
    if name not in metrics:
        msg = f"{base}/metrics has no {name}"
        raise ValueError(msg)
    return _total(metrics, name)


def _airflow_parts(settings: Settings) -> dict[str, str]:
    url = f"{settings.local_airflow_url}/api/v2/monitor/health"
    names = {
        "metadatabase": "postgres",
        "scheduler": "airflow-scheduler",
        "dag_processor": "airflow-dag-processor",
        "triggerer": "airflow-triggerer",
    }
    try:
        parts = json.loads(_get(url))
    except (HeadraceError, ValueError) as exc:
        unknown = "unknown: the api-server does not answer"
        return {"airflow-api-server": str(exc), **dict.fromkeys(names.values(), unknown)}
    states = {"airflow-api-server": _UP}
    for part, name in names.items():
        state = parts.get(part, {}).get("status")
        states[name] = _UP if state == "healthy" else str(state or "does not run")
    return states


def _get(url: str) -> bytes:
    try:
        response = urllib3.request(
            "GET", url, timeout=_CALL_SECONDS, retries=urllib3.Retry(0, redirect=2)
        )
    except urllib3.exceptions.HTTPError as exc:
        msg = f"{url} does not answer"
        raise ServerUnavailableError(msg) from exc
    return response.data
