"""Logins, access rules and certificates at real servers; no output contains a secret."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3
from paho.mqtt.client import MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import SecretStr

from headrace.cli import main
from headrace.errors import AccessDeniedError, MissingResourceError
from headrace.storage.influx import Influx, influx_address
from native.airflow import airflow_environment
from native.servers import LOOPBACK
from tests.support.devices import Publisher, reading
from tests.support.guarded import SECRETS, Guarded
from tests.support.installation import Installation
from tests.support.processes import Process, free_port, wait_for

#: Wrong values that tests use, as recognisable as the right ones.
WRONG = "recognisable-and-wrong"
COMMANDS = ("", "bridge", "sink", "provision", "status", "simulate", "login", "audit", "replay")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """Servers with logins and TLS, and an installation with the right credentials."""
    servers = Guarded()
    try:
        servers.start()
        yield servers
    finally:
        servers.installation.close()
        servers.close()


@pytest.fixture
def installation(guarded: Guarded) -> Iterator[Installation]:
    yield guarded.installation
    guarded.installation.close()


def password_of(installation: Installation, device: str) -> str:
    """Return the password of a simulated device."""
    passwords = json.loads((installation.settings.logins_dir / "fleet.json").read_text())
    return str(passwords[device])


def said_by(worker: Process, pattern: str, seconds: float = 60.0) -> str:
    """Wait until a worker's log contains a pattern; return the match."""

    def found() -> str:
        match = re.search(pattern, worker.log.read_text())
        return match[0] if match else ""

    return wait_for(found, seconds)


def provision(installation: Installation, **env: str) -> str:
    """Provision with wrong settings; return the error, which is one sentence."""
    admin = {name: value for name, value in SECRETS.items() if "ADMIN" in name}
    done = installation.headrace("provision", "--wait", "1", **{**admin, **env})
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


# --- In `make test` ----------------------------------------------------------------------


def test_everything_works_with_the_right_logins_and_certificates(
    guarded: Guarded, installation: Installation
) -> None:
    """MQTT over TLS with a login, Kafka with SCRAM over TLS, InfluxDB by HTTPS."""
    installation.worker("bridge").start()
    installation.worker("sink").start()
    topic = f"{installation.name}/generator1"
    # Legal user properties that are longer than the rest of the packet.
    large = Properties(PacketTypes.PUBLISH)
    large.UserProperty = [(name, "x" * 60_000) for name in "abcd"]
    password = password_of(installation, "generator1")
    with guarded.device("generator1", password, protocol=MQTTv5) as device:
        content = json.dumps(reading(fuel=320))
        device.client.publish(topic, content, qos=1, properties=large).wait_for_publish(30)
        device.send_all([(topic, reading(fuel=321))])
    points = wait_for(lambda: len(found := installation.points("fuel")) == 2 and found)
    assert {(device, value) for device, _, value in points} == {
        ("generator1", 320.0),
        ("generator1", 321.0),
    }
    status = json.loads(installation.headrace("status", "--json").stdout)
    states = {name: part["state"] for name, part in status["components"].items()}
    for component in ("mosquitto", "kafka", "influxdb", "bridge", "sink"):
        assert states[component] == "up"


def test_a_wrong_password_a_wrong_ca_and_a_wrong_topic_are_refused(
    guarded: Guarded, installation: Installation
) -> None:
    bridge = installation.worker("bridge", label="wrong", HEADRACE_MQTT_PASSWORD=WRONG)
    bridge.launch()
    assert bridge.wait(60) == 1
    assert "HEADRACE_MQTT_PASSWORD" in bridge.tail(1)

    stranger = str(guarded.stranger.ca_file)
    sentence = provision(installation, HEADRACE_INFLUX_CA_FILE=stranger)
    assert "HEADRACE_INFLUX_CA_FILE" in sentence
    sentence = provision(installation, HEADRACE_KAFKA_CA_FILE=stranger)
    assert "HEADRACE_KAFKA_CA_FILE" in sentence

    own, other = (f"{installation.name}/{device}" for device in ("generator1", "generator2"))
    answers: dict[int, str] = {}
    password = password_of(installation, "generator1")
    with guarded.device("generator1", password, protocol=MQTTv5) as device:
        device.client.on_publish = lambda *args: answers.update({args[2]: str(args[3])})
        sent = [device.send(topic, b"?").mid for topic in (own, other, f"{other}/status")]
        wait_for(lambda: len(answers) == len(sent))
    assert answers[sent[0]] != "Not authorized"
    assert [answers[mid] for mid in sent[1:]] == ["Not authorized"] * 2


def said_by_workers(installation: Installation, label: str, **env: str) -> list[str]:
    """Return the output of bridge and sink after each has connected to Kafka or failed."""
    ports = {"bridge": installation.bridge_port, "sink": installation.sink_port}
    workers = [installation.worker(name, label=f"secret-{name}-{label}", **env) for name in ports]
    for worker in workers:
        worker.launch()

    def known(port: int) -> bool:
        report = installation.health(port)
        return bool(report) and "starting" not in str(report["conditions"]["kafka"])

    wait_for(lambda: all(known(port) for port in ports.values()), 60)
    said = []
    for port in ports.values():
        for path in ("metrics", "healthz"):
            url = f"http://{LOOPBACK}:{port}/{path}"
            said.append(urllib3.request("GET", url, retries=False).data.decode())
    for worker in workers:
        worker.kill()
        said.append(worker.log.read_text())
    return said


def said_by_commands(installation: Installation, *commands: str, **env: str) -> list[str]:
    """Run some commands at once; return their output."""
    with ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(lambda item: installation.headrace(*item.split(), **SECRETS | env), commands)
        )
    return [text for each in done for text in (each.stdout, each.stderr)]


def test_no_secret_appears_in_any_output(installation: Installation) -> None:
    """Check output with the right secrets, and error output with each secret wrong."""
    good = {"HEADRACE_LOG_LEVEL": "debug", "HEADRACE_LOG_FORMAT": "json"}
    wrong = {**good, **dict.fromkeys(SECRETS, WRONG), "HEADRACE_INFLUX_TOKEN": WRONG}
    refused = installation.worker("bridge", label="secret", **good, HEADRACE_MQTT_PASSWORD=WRONG)
    refused.launch()
    assert refused.wait(60) == 1
    text = "\n".join(
        [
            refused.log.read_text(),
            *said_by_workers(installation, "good", **good),
            *said_by_workers(installation, "wrong", **wrong),
            *said_by_commands(installation, "provision", "status", "status --json", **good),
            *said_by_commands(installation, "provision --wait 1", "status --json", **wrong),
        ]
    )
    assert "HEADRACE_KAFKA_PASSWORD" in text
    assert "HEADRACE_MQTT_PASSWORD" in text
    tokens = [path.read_text().strip() for path in installation.settings.tokens_dir.iterdir()]
    for secret in (*SECRETS.values(), *tokens, WRONG):
        assert secret not in text, text[max(0, text.index(secret) - 300) :][:600]


def test_help_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    for command in COMMANDS:
        monkeypatch.setattr("sys.argv", ["headrace", *command.split(), "--help"])
        with pytest.raises(SystemExit, match="0"):
            main()
    shown = capsys.readouterr().out
    assert shown.count("Usage:") == len(COMMANDS)
    assert not [secret for secret in SECRETS.values() if secret in shown]


# --- The full matrix ---------------------------------------------------------------------

#: The wrong setting, and the words that the error must contain.
AT_MQTT = {
    "wrong password": ({"HEADRACE_MQTT_PASSWORD": WRONG}, "HEADRACE_MQTT_PASSWORD"),
    "unknown login": ({"HEADRACE_MQTT_USERNAME": "nobody"}, "HEADRACE_MQTT_USERNAME"),
    "no login": ({"HEADRACE_MQTT_USERNAME": ""}, "HEADRACE_MQTT_USERNAME"),
    "wrong CA": ({"HEADRACE_MQTT_CA_FILE": "{stranger}"}, "HEADRACE_MQTT_CA_FILE"),
    "the system's CAs": ({"HEADRACE_MQTT_CA_FILE": ""}, "HEADRACE_MQTT_CA_FILE"),
    "no CA": ({"HEADRACE_MQTT_CA_FILE": "{key}"}, "HEADRACE_MQTT_CA_FILE"),
    "missing CA": ({"HEADRACE_MQTT_CA_FILE": "nowhere"}, "HEADRACE_MQTT_CA_FILE"),
    "another name": ({"HEADRACE_MQTT_HOST": "localhost"}, "HEADRACE_MQTT_HOST"),
}
NO_LOGIN = {"HEADRACE_KAFKA_USERNAME": "", "HEADRACE_KAFKA_PASSWORD": ""}
AT_KAFKA = {
    "wrong password": ({"HEADRACE_KAFKA_PASSWORD": WRONG}, "HEADRACE_KAFKA_PASSWORD"),
    "unknown login": ({"HEADRACE_KAFKA_USERNAME": "nobody"}, "HEADRACE_KAFKA_USERNAME"),
    "no login": ({"HEADRACE_KAFKA_USERNAME": ""}, "HEADRACE_KAFKA_USERNAME"),
    "no SASL": ({"HEADRACE_KAFKA_PROTOCOL": "SSL", **NO_LOGIN}, "HEADRACE_KAFKA_PROTOCOL"),
    "wrong mechanism": (
        {"HEADRACE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"},
        "HEADRACE_KAFKA_SASL_MECHANISM",
    ),
    "wrong CA": ({"HEADRACE_KAFKA_CA_FILE": "{stranger}"}, "HEADRACE_KAFKA_CA_FILE"),
    "the system's CAs": ({"HEADRACE_KAFKA_CA_FILE": ""}, "HEADRACE_KAFKA_CA_FILE"),
    "no CA": ({"HEADRACE_KAFKA_CA_FILE": "{key}"}, "HEADRACE_KAFKA_"),
    "plain": (
        {"HEADRACE_KAFKA_PROTOCOL": "PLAINTEXT", "HEADRACE_KAFKA_CA_FILE": "", **NO_LOGIN},
        "HEADRACE_KAFKA_PROTOCOL",
    ),
    "login in the clear": (
        {"HEADRACE_KAFKA_PROTOCOL": "SASL_PLAINTEXT", "HEADRACE_KAFKA_CA_FILE": ""},
        "HEADRACE_KAFKA_PROTOCOL",
    ),
    "another name": (
        {"HEADRACE_KAFKA_BOOTSTRAP": "localhost:{kafka_port}"},
        "HEADRACE_KAFKA_BOOTSTRAP",
    ),
}
AT_INFLUXDB = {
    "wrong token": (
        {"HEADRACE_INFLUX_ADMIN_TOKEN": WRONG},
        "HEADRACE_INFLUX_ADMIN_TOKEN",
    ),
    "wrong CA": ({"HEADRACE_INFLUX_CA_FILE": "{stranger}"}, "HEADRACE_INFLUX_CA_FILE"),
    "the system's CAs": ({"HEADRACE_INFLUX_CA_FILE": ""}, "HEADRACE_INFLUX_CA_FILE"),
    "no CA": ({"HEADRACE_INFLUX_CA_FILE": "{key}"}, "HEADRACE_INFLUX_CA_FILE"),
    "plain": (
        {"HEADRACE_INFLUX_TLS": "false", "HEADRACE_INFLUX_CA_FILE": ""},
        "HEADRACE_INFLUX_TLS",
    ),
    "another name": ({"HEADRACE_INFLUX_HOST": "localhost"}, "HEADRACE_INFLUX_HOST"),
}


def filled(env: dict[str, str], guarded: Guarded) -> dict[str, str]:
    places = {
        "stranger": guarded.stranger.ca_file,
        "key": guarded.folder / "server.key",
        "kafka_port": guarded.kafka_port,
    }
    return {name: value.format(**places) for name, value in env.items()}


@pytest.mark.long
@pytest.mark.parametrize("wrong", AT_MQTT)
def test_mosquitto_refuses(guarded: Guarded, installation: Installation, wrong: str) -> None:
    env, setting = AT_MQTT[wrong]
    bridge = installation.worker("bridge", label=wrong, **filled(env, guarded))
    bridge.launch()
    assert bridge.wait(60) == 1
    assert setting in bridge.tail(1)
    assert "Traceback" not in bridge.log.read_text()


@pytest.mark.long
def test_mosquitto_refuses_connections_without_tls(installation: Installation) -> None:
    """A broker that closes the connection may recover, so the bridge reports it and retries."""
    bridge = installation.worker("bridge", label="clear", HEADRACE_MQTT_TLS="false")
    bridge.launch()
    said_by(bridge, "HEADRACE_MQTT_TLS")
    assert not installation.healthy(installation.bridge_port)
    assert bridge.alive
    with pytest.raises(AssertionError, match="the broker does not answer"):
        Publisher(installation.backbone.mqtt_port).__enter__()


@pytest.mark.long
@pytest.mark.parametrize("wrong", AT_KAFKA)
def test_kafka_refuses(guarded: Guarded, installation: Installation, wrong: str) -> None:
    env, setting = AT_KAFKA[wrong]
    assert setting in provision(installation, **filled(env, guarded))


@pytest.mark.long
@pytest.mark.parametrize("worker", ["bridge", "sink"])
def test_a_worker_refused_by_kafka_reports_it_and_waits(
    installation: Installation, worker: str
) -> None:
    process = installation.worker(worker, label=f"refused-{worker}", HEADRACE_KAFKA_PASSWORD=WRONG)
    process.launch()
    said_by(process, "HEADRACE_KAFKA_PASSWORD")
    port = installation.bridge_port if worker == "bridge" else installation.sink_port
    report = installation.health(port)
    assert not report["healthy"]
    assert "HEADRACE_KAFKA_PASSWORD" in report["conditions"]["kafka"]["state"]
    assert process.stop() == 0


@pytest.mark.long
def test_kafka_works_with_tls_and_without_login(
    guarded: Guarded, installation: Installation
) -> None:
    tls = {
        "HEADRACE_KAFKA_PROTOCOL": "SSL",
        "HEADRACE_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{guarded.kafka_tls_port}",
        **NO_LOGIN,
    }
    bridge = installation.worker("bridge", label="tls", **tls)
    bridge.start()
    assert bridge.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("wrong", AT_INFLUXDB)
def test_influxdb_refuses(guarded: Guarded, installation: Installation, wrong: str) -> None:
    env, setting = AT_INFLUXDB[wrong]
    assert setting in provision(installation, **filled(env, guarded))


@pytest.mark.long
@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        ({"HEADRACE_INFLUX_TOKEN": WRONG}, "HEADRACE_INFLUX_TOKEN"),
        ({"HEADRACE_INFLUX_TLS": "false", "HEADRACE_INFLUX_CA_FILE": ""}, "HEADRACE_INFLUX_TLS"),
        ({"HEADRACE_INFLUX_HOST": "localhost"}, "HEADRACE_INFLUX_HOST"),
    ],
)
def test_a_sink_refused_by_influxdb_keeps_the_readings(
    guarded: Guarded, installation: Installation, wrong: dict[str, str], setting: str
) -> None:
    """No reading becomes a dead letter. The sink writes them all after the setting is fixed."""
    before = len(installation.points())
    letters = len(installation.records(installation.profile.topics.dead_letter))
    installation.worker("bridge").start()
    sink = installation.worker("sink", label="refused", **wrong)
    sink.launch()
    with guarded.device("generator1", password_of(installation, "generator1")) as device:
        device.send_all([(f"{installation.name}/generator1", reading())])
    wait_for(
        lambda: (
            setting
            in str(
                installation.health(installation.sink_port).get("conditions", {}).get("influxdb")
            )
        )
    )
    assert sink.stop() == 0
    assert len(installation.points()) == before
    assert len(installation.records(installation.profile.topics.dead_letter)) == letters
    installation.worker("sink", label="mended").start()
    wait_for(lambda: len(installation.points()) == before + 1)


#: The first step of a task: open clients from the Airflow Connections.
TASK = """
from datetime import timedelta
from headrace.orchestration.connections import open_pipeline
with open_pipeline(timedelta(seconds=30)) as pipeline:
    pipeline.kafka.check_connection()
    now = pipeline.store.now()
    pipeline.quality.newest_reading(now - timedelta(days=1), now)
    print(pipeline.kafka.config["security.protocol"])
"""


@pytest.mark.long
def test_the_airflow_connections_carry_logins_and_certificates(
    guarded: Guarded, installation: Installation, tmp_path: Path
) -> None:
    """The same settings reach the clients that Airflow tasks create from Connections."""
    unused = dict.fromkeys(
        ("airflow_password", "airflow_jwt_secret", "airflow_fernet_key", "postgres_password"),
        SecretStr("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    )
    settings = installation.settings.model_copy(update=unused)
    connections = airflow_environment(settings, tmp_path)

    def task(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", TASK],
            cwd=tmp_path,
            env={**os.environ, **installation.environment, **connections, **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = task()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "SASL_SSL"
    # The Connection decides, not the environment.
    trusted, stranger = str(guarded.authority.ca_file), str(guarded.stranger.ca_file)
    for name in ("AIRFLOW_CONN_KAFKA_DEFAULT", "AIRFLOW_CONN_INFLUXDB_DEFAULT"):
        refused = task(**{name: connections[name].replace(trusted, stranger)})
        assert refused.returncode == 1
        assert "headrace.errors.AccessDeniedError: " in refused.stderr


@pytest.mark.long
def test_tokens_have_only_the_rights_they_need(installation: Installation) -> None:
    settings, buckets = installation.settings, installation.profile.buckets
    everything = "from(bucket: params.bucket) |> range(start: 0)"
    line = b"genData,generatorID=g fuel=1.0 1700000000000000000"
    now = datetime.now(UTC)
    with Influx(influx_address(settings, "sink")) as sink:
        for bucket in (buckets.raw, buckets.downsampled, buckets.quality):
            # InfluxDB does not reveal that the bucket exists.
            with pytest.raises(MissingResourceError):
                sink.run(everything, {"bucket": bucket})
        for bucket in (buckets.downsampled, buckets.quality):
            with pytest.raises(AccessDeniedError):
                sink.write(bucket, line)
    with Influx(influx_address(settings, "airflow")) as airflow:
        with pytest.raises(AccessDeniedError):
            airflow.write(buckets.raw, line)
        with pytest.raises(AccessDeniedError):
            airflow.delete(buckets.raw, datetime(1970, 1, 1, tzinfo=UTC), now, "genData")
        airflow.run(everything, {"bucket": buckets.raw})


@pytest.mark.long
@pytest.mark.parametrize(
    ("login", "password"), [("generator1", WRONG), ("nobody", WRONG), ("generator1", "")]
)
def test_a_device_without_its_password_is_refused(
    guarded: Guarded, login: str, password: str
) -> None:
    device = guarded.device(login, password)
    refused = []
    device.client.on_connect_fail = lambda *_: refused.append("failed")
    device.client.on_connect = lambda *args: refused.append(str(args[3]))
    device.client.connect(LOOPBACK, guarded.mqtt_port)
    device.client.loop_start()
    try:
        wait_for(lambda: refused)
    finally:
        device.client.loop_stop()
    assert refused[0] == "Not authorized"


@pytest.mark.long
def test_a_last_will_for_another_device_is_not_published(
    guarded: Guarded, installation: Installation
) -> None:
    """Mosquitto accepts the will and checks the access rules only when it sends the will."""
    installation.worker("bridge").start()
    victim = f"{installation.name}/generator2/status"
    forger = guarded.device("generator1", password_of(installation, "generator1"))
    forger.client.will_set(victim, "offline", qos=1)
    with forger:
        # The device is gone without a DISCONNECT.
        forger.client.socket().shutdown(socket.SHUT_RDWR)
    with guarded.device("generator2", password_of(installation, "generator2")) as device:
        device.send_all([(victim, b"online")])
    records = wait_for(lambda: installation.records(installation.profile.topics.status))
    assert [(record.key, json.loads(record.value)["status"]) for record in records] == [
        (b"generator2", "online")
    ]


@pytest.mark.long
def test_no_device_can_take_over_the_session_of_a_bridge(
    guarded: Guarded, installation: Installation
) -> None:
    """A client with the bridge's client id would receive and lose its queued messages."""
    bridge = installation.worker("bridge", label="robbed")
    bridge.start()
    assert bridge.stop() == 0
    before = len(installation.records(installation.profile.topics.raw))
    with guarded.device("generator1", password_of(installation, "generator1")) as device:
        device.send_all([(f"{installation.name}/generator1", reading())] * 20)
    stolen: list[str] = []
    for name in ("HEADRACE_BRIDGE_ID", "HEADRACE_MQTT_USERNAME"):
        thief = guarded.device(
            "generator2",
            password_of(installation, "generator2"),
            client_id=installation.environment[name],
        )
        thief.client.on_message = lambda _c, _u, message: stolen.append(message.topic)
        with thief:
            thief.client.subscribe(f"{installation.name}/+", qos=1)
            thief.send(f"{installation.name}/generator2", b"?").wait_for_publish(10)
    bridge.start()
    raw = installation.profile.topics.raw
    wait_for(lambda: len(installation.records(raw)) == before + 20)
    assert not stolen


@pytest.mark.long
@pytest.mark.runs("cli:provision")
def test_a_second_bridge_has_its_own_login(guarded: Guarded, installation: Installation) -> None:
    north = {"HEADRACE_MQTT_USERNAME": "north", "HEADRACE_MQTT_PASSWORD": "of the north"}
    admin = {name: value for name, value in SECRETS.items() if "ADMIN" in name}
    done = installation.headrace("provision", **{**admin, **north})
    assert done.returncode == 0, done.stderr
    guarded.mosquitto.signal(signal.SIGHUP)
    first = installation.worker("bridge", HEADRACE_MQTT_TOPICS=f"{installation.name}/generator1")
    port = str(free_port())
    other = installation.worker(
        "bridge",
        label="north",
        HEADRACE_BRIDGE_ID="north",
        HEADRACE_BRIDGE_METRICS_PORT=port,
        HEADRACE_MQTT_TOPICS=f"{installation.name}/generator2",
        **north,
    )
    first.start()
    other.launch()
    wait_for(lambda: installation.healthy(int(port)))
    for name in ("generator1", "generator2"):
        with guarded.device(name, password_of(installation, name)) as device:
            device.send_all([(f"{installation.name}/{name}", reading(name))])
    raw = installation.profile.topics.raw
    wait_for(
        lambda: (
            (b"generator2", b"north")
            in {(record.key, record.headers["bridge"]) for record in installation.records(raw)}
        )
    )
    assert installation.healthy(installation.bridge_port)


@pytest.mark.long
@pytest.mark.runs("cli:login")
def test_a_login_is_created_and_removed(guarded: Guarded, installation: Installation) -> None:
    done = installation.headrace("login", "pump7")
    password = re.search(r"pump7\W+([\w-]+)", done.stdout)
    assert password is not None, done.stdout

    def answer() -> str:
        answers: list[str] = []
        device = guarded.device("pump7", password[1])
        device.client.on_connect = lambda *args: answers.append(str(args[3]))
        device.client.connect(LOOPBACK, guarded.mqtt_port)
        device.client.loop_start()
        try:
            return wait_for(lambda: answers)[0]
        finally:
            device.client.disconnect()
            device.client.loop_stop()

    guarded.mosquitto.signal(signal.SIGHUP)
    wait_for(lambda: answer() == "Success", every=1)
    with guarded.device("pump7", password[1]) as device:
        assert installation.headrace("login", "--remove", "pump7").returncode == 0
        guarded.mosquitto.signal(signal.SIGHUP)
        # A removed login also ends existing connections.
        wait_for(lambda: not device.client.is_connected())
    assert answer() == "Not authorized"
