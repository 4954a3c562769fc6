"""Compose on a real engine: the stack is started, used, killed, stopped and removed.

The tests build on one another, in the order of this file.
"""

from __future__ import annotations

import json
import re
import smtplib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from headrace.models.window import floor, parse_time, rfc3339
from native.servers import LOOPBACK
from tests.compose.containers import kill_processes, processes
from tests.compose.docker import Docker
from tests.compose.events import Events
from tests.compose.outside import Outside
from tests.compose.stack import Stack
from tests.support.processes import wait_for
from tests.support.streams import Stream

pytestmark = pytest.mark.compose

#: Limits for `up`: when images may have to be built, and when they are built.
_COLD_SECONDS, _WARM_SECONDS = 8 * 60, 3 * 60
_MINUTE = timedelta(minutes=1)
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
RUNNING = WORKERS | AIRFLOW | SERVERS

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

#: The port of a container, and the setting that names the port on loopback.
PUBLISHED = {
    "mosquitto": {"1883/tcp": "MQTT"},
    "kafka": {"9092/tcp": "KAFKA"},
    "influxdb": {"8086/tcp": "INFLUX"},
    "mailbox": {"1080/tcp": "MAILBOX", "1025/tcp": "SMTP"},
    "bridge": {"9101/tcp": "BRIDGE_METRICS"},
    "sink": {"9102/tcp": "SINK_METRICS"},
    "airflow-api-server": {"8080/tcp": "AIRFLOW"},
}
#: The number of the user that each container's processes run as. Ours and mosquitto, which
#: reads their files, are 50000.
USERS = {"kafka": 1000, "influxdb": 1000, "postgres": 999, "mailbox": 1000}
#: Seconds between SIGTERM and SIGKILL.
GRACE = {
    **dict.fromkeys(SERVERS, 30),
    **dict.fromkeys(WORKERS, 60),
    **dict.fromkeys(AIRFLOW, 40),
    "kafka": 60,
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


@pytest.fixture(scope="module")
def outside(stack: Stack) -> Outside:
    return stack.outside


@pytest.fixture(scope="module")
def begun() -> datetime:
    """When the first test of this file started."""
    return datetime.now(UTC)


def stream_to(outside: Outside, name: str) -> Stream:
    """Numbered readings of five more devices, at QoS 1, with a time of their own."""
    devices: Any = SimpleNamespace(
        name="emergency_generator", backbone=SimpleNamespace(mqtt_port=outside.port("MQTT"))
    )
    return Stream(devices, name, qos=1, with_time=True, rate=20)


def stored(outside: Outside, stream: Stream) -> tuple[Counter[int], Counter[int]]:
    """How often Kafka and InfluxDB have each number of a stream."""
    contents = (json.loads(record.value) for record in outside.records("kafka_raw"))
    in_kafka = Counter(
        int(content["fuel"])
        for content in contents
        if content["generatorID"].startswith(stream.name)
    )
    in_influx = Counter(
        int(value) for device, _, value in outside.points("fuel") if device.startswith(stream.name)
    )
    return in_kafka, in_influx


def assert_each_once(outside: Outside, stream: Stream) -> None:
    """What the broker acknowledged is in Kafka and in InfluxDB, once."""
    expected = Counter(stream.acknowledged)
    assert expected
    wait_for(lambda: all(set(expected) <= set(found) for found in stored(outside, stream)), 90, 2)
    for found in stored(outside, stream):
        assert [number for number, times in found.items() if times > 1] == []


# --- The first start -------------------------------------------------------------------------


@pytest.mark.runs("make:test-compose")
def test_up_starts_everything(stack: Stack, events: Events, begun: datetime) -> None:
    assert events
    assert begun
    took = stack.up(_COLD_SECONDS)
    say(f"up, with what had to be built: {took:.0f} s (limit {_COLD_SECONDS} s)")
    assert set(stack.containers()) == RUNNING | ONE_SHOTS
    assert stack.unhealthy() == {}
    # Everything but the simulated fleet has a health check.
    unchecked = {
        name for name, found in stack.containers().items() if "Health" not in found["State"]
    }
    assert unchecked == ONE_SHOTS | {"simulate"}


def test_services_start_in_order(events: Events) -> None:
    for (service, action), later in ORDER.items():
        when = events.first(service, action)
        for other in later:
            assert when <= events.first(other, "start"), (service, other)


def test_containers_have_only_the_rights_that_they_need(stack: Stack) -> None:
    for name, found in stack.containers().items():
        host, config = found["HostConfig"], found["Config"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert not host["Privileged"], name
        assert host["ReadonlyRootfs"] == (name in WORKERS | {"provision"}), name
        assert (host["CapDrop"] or []) == ([] if name in SERVERS else ["ALL"]), name
        if name in RUNNING:
            assert config["StopTimeout"] == GRACE[name], name
            assert host["RestartPolicy"]["Name"] == "unless-stopped", name
            assert host["Memory"] > 0, name
    for name in sorted(RUNNING):
        found = processes(stack, name)
        assert found, name
        for process in found:
            assert process.user == USERS.get(name, 50000), (name, process)
            assert process.capabilities == 0, (name, process)
    for name in WORKERS:
        done = stack.exec(name, "sh", "-c", "echo > /opt/headrace/new", check=False)
        assert "Read-only file system" in done.stderr, name


def test_only_the_documented_ports_are_published(stack: Stack, outside: Outside) -> None:
    for name, found in stack.containers().items():
        published = {
            inside: [(where["HostIp"], int(where["HostPort"])) for where in wheres]
            for inside, wheres in found["NetworkSettings"]["Ports"].items()
            if wheres
        }
        assert published == {
            inside: [(LOOPBACK, outside.port(setting))]
            for inside, setting in PUBLISHED.get(name, {}).items()
        }, name
    for setting, path in {
        "INFLUX": "/health",
        "MAILBOX": "/healthz",
        "BRIDGE_METRICS": "/healthz",
        "SINK_METRICS": "/healthz",
        "AIRFLOW": "/api/v2/monitor/health",
    }.items():
        assert outside.http(setting, path).status == 200, setting
        # Otherwise a health check with a wrong path would not be noticed.
        assert outside.http(setting, f"{path}-z").status == 404, setting
    with smtplib.SMTP(LOOPBACK, outside.port("SMTP"), timeout=10) as relay:
        assert relay.noop()[0] == 250


def test_the_page_needs_a_login(outside: Outside) -> None:
    assert outside.http("AIRFLOW", "/headrace/").status == 401
    page = outside.airflow("GET", "/headrace/", api="")
    assert page.status == 200
    assert "Headrace" in page.data.decode()


def test_every_row_comes_once(outside: Outside) -> None:
    """A consumer on this machine, outside the containers' network, sees each row once."""
    wait_for(lambda: whole_windows(outside), 240, 3)
    rows = outside.rows()
    counted = Counter((row["generatorID"], row["window_start"], row["revision"]) for row in rows)
    assert [row for row, times in counted.items() if times > 1] == []
    assert len({row["generatorID"] for row in rows}) == _FLEET


def whole_windows(outside: Outside) -> list[datetime]:
    """Windows with a row of the whole fleet; one device in 500 goes offline each time."""
    devices = Counter(
        parse_time(row["window_start"])
        for row in outside.rows()
        if re.fullmatch(r"generator\d+", row["generatorID"])
    )
    return sorted(start for start, number in devices.items() if number >= 0.9 * _FLEET)


def test_status_reports_no_problem(stack: Stack) -> None:
    done = wait_for(
        lambda: found if (found := stack.cli("status")).returncode == 0 else None, 120, 5
    )
    assert "mosquitto" in done.stdout


def test_memory_and_sizes_are_known(stack: Stack, docker: Docker) -> None:
    names = [found["Id"] for name, found in stack.containers().items() if name in RUNNING]
    columns = "{{.MemUsage}} {{.Name}}"
    for line in docker.lines("stats", "--no-stream", "--format", columns, *names):
        say(f"memory: {line.split()[0]} {line.split()[-1]}")
    for line in docker.lines("image", "ls", "--format", "{{.Size}} {{.Repository}}"):
        if stack.project in line:
            say(f"image: {line}")


# --- Failures --------------------------------------------------------------------------------


def test_a_stage_that_fails_sends_a_mail(stack: Stack, outside: Outside) -> None:
    stop = floor(datetime.now(UTC), _MINUTE) - _MINUTE
    change_token(stack, "mv airflow.token kept && echo a-wrong-token > airflow.token")
    try:
        assert outside.heal(stop - _MINUTE, stop) == "failed"
    finally:
        change_token(stack, "mv kept airflow.token")
    subject = "[headrace] generators_reconcile.heal.downsample failed"
    wait_for(lambda: subject in outside.subjects(), 60, 1)
    assert outside.heal(stop - _MINUTE, stop) == "success"
    again = "[headrace] generators_reconcile.heal.downsample works again"
    wait_for(lambda: again in outside.subjects(), 60, 1)


def change_token(stack: Stack, script: str) -> None:
    """Change the token with which Airflow asks InfluxDB."""
    stack.compose(
        *["run", "--rm", "--no-deps", "--entrypoint", "sh", "provision"],
        *["-euc", f"cd /var/lib/headrace-airflow; {script}"],
    )


def test_killed_processes_come_back_and_nothing_is_lost(
    stack: Stack, outside: Outside, begun: datetime
) -> None:
    stream = stream_to(outside, "killed")
    stream.start()
    time.sleep(3)
    # A killed mosquitto loses what arrived since its last save, so it is killed when nothing
    # is under way.
    first = RUNNING - {"mosquitto"}
    kill_processes(stack, first)
    wait_until_restarted(stack, first)
    time.sleep(3)
    stream.finish()
    assert_each_once(outside, stream)
    kill_processes(stack, {"mosquitto"})
    wait_until_restarted(stack, {"mosquitto"})

    # A container that someone killed stays down until the next `up`.
    names = [found["Id"] for name, found in stack.containers().items() if name in RUNNING]
    stack.docker.run("kill", *names)
    assert set(stack.unhealthy()) == RUNNING
    took = stack.up(_WARM_SECONDS)
    say(f"up, after every container was killed: {took:.0f} s (limit {_WARM_SECONDS} s)")
    assert stack.unhealthy() == {}
    assert_each_once(outside, stream)
    assert_audited(stack, begun)


def wait_until_restarted(stack: Stack, services: set[str]) -> None:
    """Wait until their policy has restarted these, and everything is healthy again."""
    deadline = time.monotonic() + 300
    while True:
        found = stack.containers()
        waiting = [name for name in sorted(services) if not found[name]["RestartCount"]]
        if not waiting and not stack.unhealthy():
            return
        assert time.monotonic() < deadline, f"not restarted: {waiting}\n{stack.report()}"
        time.sleep(2)


def assert_audited(stack: Stack, begun: datetime) -> None:
    """Each reading so far is in InfluxDB, and arrived once."""
    stop = rfc3339(datetime.now(UTC))

    def count() -> dict[str, Any]:
        done = stack.cli("audit", "--from", rfc3339(begun), "--to", stop, "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found if not found["pending"] else {}

    found = wait_for(count, 60, 2)
    assert found["readings"] > 0
    assert (found["lost"], found["repeated"]) == (0, 0), found


def test_a_bridge_that_can_not_deliver_ends_within_its_grace_period(
    stack: Stack, outside: Outside
) -> None:
    """It is stopped while Kafka hangs; what it held is sent again, also after `down`."""
    stream = stream_to(outside, "waiting")
    kafka = stack.container("kafka")["Id"]
    stack.docker.run("pause", kafka)
    try:
        stream.start()
        time.sleep(3)
        begun = time.monotonic()
        stack.compose("stop", "bridge")
        took = time.monotonic() - begun
    finally:
        stack.docker.run("unpause", kafka)
    # It has used up its drain limit, and was not killed.
    say(f"the bridge ended after {took:.0f} s")
    assert took > outside.settings.drain_limit.total_seconds()
    assert stack.container("bridge")["State"]["ExitCode"] == 0
    # Now the broker alone has it.
    time.sleep(2)
    stream.finish()

    stopped = datetime.now(UTC)
    stack.compose("--profile", "fleet", "stop")
    # Nothing had to be killed.
    codes = {name: found["State"]["ExitCode"] for name, found in stack.containers().items()}
    assert [name for name, code in codes.items() if code == 137] == [], codes
    stack.compose("--profile", "fleet", "down")
    assert stack.containers() == {}
    # At least one whole window without the stack.
    whole = floor(stopped, _MINUTE) + 2 * _MINUTE
    time.sleep(max(0.0, (whole - datetime.now(UTC)).total_seconds()))
    took = stack.up(_WARM_SECONDS)
    say(f"up, after down: {took:.0f} s (limit {_WARM_SECONDS} s)")
    assert_each_once(outside, stream)

    # From the start, because windows may also have been missed while everything was killed.
    start, stop = floor(outside.settings.installed_at, _MINUTE), floor(datetime.now(UTC), _MINUTE)
    assert outside.heal(start, stop) == "success"
    wait_for(lambda: missing_windows(stack) == 0, 60, 3)
    away = floor(stopped, _MINUTE)
    devices = {
        row["generatorID"] for row in outside.rows() if parse_time(row["window_start"]) >= away
    }
    assert {f"waiting{number}" for number in range(5)} <= devices


def missing_windows(stack: Stack) -> int:
    windows = json.loads(stack.cli("status", "--json").stdout)["windows"]
    return int(windows["missing"])


# --- Other settings, and the end -------------------------------------------------------------


def test_with_logins_only_devices_with_a_password_get_in(stack: Stack, outside: Outside) -> None:
    stack.set_env("HEADRACE_MQTT_LOGIN", "password")
    stack.up(_WARM_SECONDS)
    since = datetime.now(UTC)
    client = Client(CallbackAPIVersion.VERSION2)
    refused: list[str] = []
    client.on_connect = lambda *arguments: refused.append(str(arguments[3]))
    client.connect(LOOPBACK, outside.port("MQTT"))
    client.loop_start()
    wait_for(lambda: refused, 10)
    client.loop_stop()
    assert refused[0] == "Not authorized"
    wait_for(lambda: [start for start in whole_windows(outside) if start >= since], 240, 3)


def test_down_with_volumes_leaves_nothing(stack: Stack, docker: Docker) -> None:
    stack.note_volumes()
    stack.compose("--profile", "fleet", "down", "--volumes")
    label = f"label=com.docker.compose.project={stack.project}"
    for kind in ("container", "network", "volume"):
        everything = ["--all"] if kind == "container" else []
        assert docker.lines(kind, "ls", *everything, "--quiet", "--filter", label) == [], kind
    # Volumes without a name of ours have no label of the project.
    assert stack.volumes & set(docker.lines("volume", "ls", "--quiet")) == set()
