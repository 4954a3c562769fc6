"""`headrace status` answers in time and gives the next step for each problem."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.cli.status import _show
from headrace.ingest.health import Health, serve_health
from headrace.ingest.metrics import BridgeMetrics
from headrace.profile import Profile
from headrace.settings import Settings, load_settings
from headrace.status import Status, _ask_bridge, _judge, collect_status

UP = dict.fromkeys(("mosquitto", "kafka", "influxdb", "bridge", "sink", "mailbox"), "up")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def settings(**changes: object) -> Settings:
    return load_settings(Path("none.env"), **changes)


def healthy(**changes: object) -> Status:
    status = Status(components=dict(UP))
    status.windows["missing"] = 0
    status.sink.update({"lag": 0, "lag_allowed": 10})
    status.add({"devices": {"complete": True}})
    for section, values in changes.items():
        status.add({section: values})  # type: ignore[dict-item]
    return status


def judged(status: Status, **changes: object) -> Status:
    _judge(status, settings(**changes))
    return status


def test_servers_that_accept_and_never_answer_are_reported_in_time(
    profile: Profile, silent_port: int, tmp_path: Path
) -> None:
    ports = ("mqtt_port", "influx_port", "bridge_metrics_port", "sink_metrics_port", "airflow_port")
    known = dict.fromkeys((*ports, "smtp_port"), silent_port)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "airflow.token").write_text("token")
    begun = time.monotonic()
    status = collect_status(
        settings(kafka_bootstrap=f"127.0.0.1:{silent_port}", state_dir=tmp_path, **known), profile
    )
    assert time.monotonic() - begun < 3
    assert not status.healthy
    silent = {name for name, state in status.components.items() if state != "up"}
    assert silent >= {"kafka", "influxdb", "bridge", "sink", "airflow-api-server"}
    for name in ("kafka", "influxdb", "bridge", "sink"):
        (problem,) = [item for item in status.problems if item.startswith(f"{name}: ")]
        assert "Next: " in problem
    assert json.loads(json.dumps(status.as_dict()))["healthy"] is False


def test_a_healthy_installation_has_no_problems() -> None:
    status = judged(healthy())
    assert status.healthy
    assert status.problems == []
    assert status.notices == []


def test_lost_records_are_a_problem_for_a_day_and_then_a_notice() -> None:
    lost = {"topic": "kafka_raw", "partition": 2, "start": 5, "stop": 12, "detail": "deleted"}
    now = datetime.now(UTC)
    for age, problems in ((timedelta(hours=1), 1), (timedelta(hours=25), 0)):
        recorded = int((now - age).timestamp() * 1000)
        status = judged(healthy(sink={"lost": [{**lost, "recorded_ms": recorded}]}))
        assert len(status.problems) == problems
        assert len(status.problems) + len(status.notices) == 1
        (sentence,) = [*status.problems, *status.notices]
        assert "partition 2, offsets 5 to 11" in sentence
        assert "Next: " in sentence


def test_an_installation_date_in_the_future_is_not_healthy() -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    status = judged(healthy(), installed_at=later)
    assert not status.healthy
    (problem,) = status.problems
    assert "HEADRACE_INSTALLED_AT" in problem
    assert "ahead" in problem
    assert "Next: " in problem


@pytest.mark.parametrize(
    ("section", "values", "part"),
    [
        ("windows", {"missing": 3}, "3 windows are missing"),
        ("sink", {"lag": 50}, "50 records behind"),
        ("components", {"sink": "influxdb: away"}, "sink: influxdb: away"),
    ],
)
def test_each_problem_says_what_to_do(section: str, values: dict[str, object], part: str) -> None:
    status = judged(healthy(**{section: values}))
    (problem,) = status.problems
    assert part in problem
    assert "Next: " in problem


def test_notices_do_not_make_the_status_unhealthy() -> None:
    status = judged(
        healthy(
            mqtt={"dropped": 7, "shortfalls": ["grants QoS 0"], "clock_jumps": 2},
            kafka={"skipped": {"kafka_raw": 4}},
            devices={"complete": False},
        )
    )
    assert status.healthy
    assert len(status.notices) == 5


def test_device_ids_are_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    status = healthy(
        devices={
            "offline": [{"device": "[red]x\x1b[2J", "since": "2026-01-01T00:00:00Z"}],
            "drifting": {"[bold]y": 40.0},
        },
        components={"bridge": "mqtt: [link=http://x]click"},
    )
    _show(judged(status))
    shown = capsys.readouterr().out
    for text in ("[red]x", "[bold]y", "[link=http://x]click", "\\x1b"):
        assert text in shown
    assert "\x1b[2J" not in shown


def test_skipped_records_of_the_bridge_are_read_by_topic() -> None:
    metrics = BridgeMetrics()
    metrics.skipped.labels("kafka_raw", "not_json").inc(2)
    metrics.skipped.labels("kafka_raw", "empty").inc()
    metrics.skipped.labels("generator_status", "empty").inc(4)
    health = Health("bridge", ["mqtt", "kafka"])
    server = serve_health(health, metrics.registry, "127.0.0.1", 0)
    try:
        answer = _ask_bridge(settings(bridge_metrics_port=server.server_port))
    finally:
        server.shutdown()
        server.server_close()
    assert answer["kafka"]["skipped_by_bridge"] == {"kafka_raw": 3, "generator_status": 4}
    assert answer["mqtt"]["received"] == 0
