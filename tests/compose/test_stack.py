"""Compose on a real engine: the stack is started, used, killed, stopped and removed.

The tests build on one another, in the order of this file.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import pytest

from headrace.models.window import parse_time
from tests.compose.docker import Docker
from tests.compose.stack import Events, Stack
from tests.support.processes import wait_for

pytestmark = pytest.mark.compose

#: Limits for `up`: when images may have to be built, and when they are built.
_COLD_SECONDS, _WARM_SECONDS = 8 * 60, 3 * 60
_FLEET = 50

WORKERS = {"bridge", "sink", "simulate"}
AIRFLOW = {
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
}
SERVERS = {"mosquitto", "kafka", "influxdb", "postgres", "mailbox"}
ONE_SHOTS = {"provision", "airflow-init"}
SERVICES = WORKERS | AIRFLOW | SERVERS | ONE_SHOTS

#: Which event of a service comes before the start of which others.
ORDER = {
    ("kafka", "health_status: healthy"): {"provision", "bridge", "sink"},
    ("influxdb", "health_status: healthy"): {"provision", "sink"},
    ("provision", "ended 0"): {"mosquitto", "bridge", "sink", "airflow-scheduler"},
    ("mosquitto", "health_status: healthy"): {"bridge"},
    ("bridge", "health_status: healthy"): {"simulate"},
    ("postgres", "health_status: healthy"): {"airflow-init"},
    ("airflow-init", "ended 0"): AIRFLOW,
    ("airflow-api-server", "health_status: healthy"): AIRFLOW - {"airflow-api-server"},
}


def say(text: str) -> None:
    """Print a figure that a reader of the test's output wants to see."""
    sys.stdout.write(f"\n  {text}\n")
    sys.stdout.flush()


@pytest.fixture(scope="module")
def events(stack: Stack) -> Iterator[Events]:
    """What happens during the first start."""
    noted = Events(stack)
    yield noted
    noted.close()


@pytest.mark.runs("make:test-compose")
def test_up_starts_everything(stack: Stack, events: Events) -> None:
    assert events
    took = stack.up(_COLD_SECONDS)
    say(f"up, with what had to be built: {took:.0f} s (limit {_COLD_SECONDS} s)")
    assert set(stack.containers()) == SERVICES
    assert stack.unhealthy() == {}


def test_services_start_in_order(events: Events) -> None:
    for (service, action), later in ORDER.items():
        when = events.first(service, action)
        for other in later:
            assert when <= events.first(other, "start"), (service, other)


def test_every_row_comes_once(stack: Stack) -> None:
    """A consumer on this machine, outside the containers' network, sees each row once."""

    def whole_window() -> datetime | None:
        devices: Counter[datetime] = Counter()
        for row in stack.rows():
            devices[parse_time(row["window_start"])] += 1
        whole = [start for start, number in devices.items() if number >= _FLEET - 2]
        return max(whole, default=None)

    wait_for(whole_window, 240, 3)
    rows = stack.rows()
    counted = Counter((row["generatorID"], row["window_start"], row["revision"]) for row in rows)
    assert [row for row, times in counted.items() if times > 1] == []
    assert len({row["generatorID"] for row in rows}) == _FLEET


def test_status_reports_every_component(stack: Stack) -> None:
    done = wait_for(
        lambda: found if (found := stack.cli("status")).returncode == 0 else None, 90, 5
    )
    assert "missing" in done.stdout


def test_down_with_volumes_leaves_nothing(stack: Stack, docker: Docker) -> None:
    stack.note_volumes()
    stack.compose("--profile", "fleet", "down", "--volumes")
    label = f"label=com.docker.compose.project={stack.project}"
    for kind in ("container", "network", "volume"):
        everything = ["--all"] if kind == "container" else []
        assert docker.lines(kind, "ls", *everything, "--quiet", "--filter", label) == [], kind
    # Volumes without a name of ours have no label of the project.
    assert stack.volumes & set(docker.lines("volume", "ls", "--quiet")) == set()
