"""Devices and consumers on another machine, by the commands of README.

The machine is a network namespace, which only root can make. Elsewhere these tests fail and say
so.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from dotenv import dotenv_values

from headrace.profile import Profile, load_profile
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import read_topic
from headrace.storage.kafka_topics import provision_topics
from native.dotenv import write_env
from native.programs import exclusively, libraries, unpack_debian
from native.stack import Stack, find_programs, load_stack
from tests.support.backbone import make_folder
from tests.support.installation import PROJECT
from tests.support.namespace import Namespace, another_machine
from tests.support.processes import Process, free_port, wait_for

HOST = "headrace.example.com"
DEVICE, CONSUMER = "generator99", "dashboard"
#: Runs on the other machine: tries what a consumer's login must not do, and prints the answers.
TRIES = """
import sys
from concurrent.futures import ThreadPoolExecutor
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

address, password, sinks, rows, *others = sys.argv[1:]
encrypted = {"bootstrap.servers": address, "log_level": 0, "security.protocol": "SASL_SSL",
    "ssl.ca.location": "ca.crt", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "dashboard"}
good = {**encrypted, "sasl.password": password}

def topics(config):
    errors = []
    admin = AdminClient({**config, "error_cb": errors.append})
    try:
        return " ".join(sorted(admin.list_topics(timeout=3).topics))
    except KafkaException as exc:
        admin.poll(0)
        names = [error.name() for error in (*errors, *exc.args)]
        return next(name for name in names if name != "_ALL_BROKERS_DOWN")

def read(topic, group):
    consumer = Consumer({**good, "group.id": group})
    consumer.subscribe([topic])
    record = consumer.poll(20)
    consumer.close()
    return record.error().name() if record and record.error() else str(record)

def write(topic):
    answers = []
    producer = Producer({**good, "message.timeout.ms": 10000})
    producer.produce(topic, b"forged", on_delivery=lambda error, _: answers.append(error))
    producer.flush(15)
    return answers[0].name() if answers[0] else "written"

def administer():
    admin = AdminClient(good)
    try:
        list(admin.delete_topics([rows]).values())[0].result()
    except KafkaException as exc:
        return exc.args[0].name()
    return "deleted"

if not others:
    print("topics:", topics(good))
    sys.exit()
with ThreadPoolExecutor(12) as pool:
    asked = {
        "topics": pool.submit(topics, good),
        "wrong password": pool.submit(topics, {**encrypted, "sasl.password": "wrong"}),
        "plain": pool.submit(topics, {"bootstrap.servers": address, "log_level": 0}),
        "group of the sinks": pool.submit(read, rows, sinks),
        "administer": pool.submit(administer),
        **{f"read {topic}": pool.submit(read, topic, "dashboard.other") for topic in others},
        **{f"write {topic}": pool.submit(write, topic) for topic in (rows, *others)},
    }
    for what, answer in asked.items():
        print(f"{what}: {answer.result()}")
"""
#: Runs on the other machine: publishes over secure WebSockets.
WEBSOCKETS = """
import sys
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
host, port, login, password, topic, payload = sys.argv[1:]
client = Client(CallbackAPIVersion.VERSION2, transport="websockets")
client.tls_set("ca.crt")
client.username_pw_set(login, password)
client.connect(host, int(port))
client.loop_start()
client.publish(topic, payload, qos=1).wait_for_publish(10)
client.disconnect()
"""


def readme(language: str) -> list[str]:
    """The blocks of README's section, by language."""
    text = (PROJECT / "README.md").read_text()
    section = text.partition("## Devices and consumers on other machines\n")[2].partition("\n## ")[
        0
    ]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@dataclass
class World:
    """The bundled broker and Kafka as `.env` describes them, a bridge, and another machine."""

    stack: Stack
    folder: Path
    machine: Namespace
    client: Path
    bridge: Process
    mosquitto: Process

    @property
    def profile(self) -> Profile:
        return load_profile(self.stack.settings.profile)

    @property
    def kafka(self) -> Kafka:
        return Kafka.from_settings(self.stack.settings)

    def headrace(self, *arguments: str) -> str:
        """Run a command of ours where `.env` is, and return what it prints."""
        done = subprocess.run(
            [Path(sys.executable).parent / "headrace", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def password(self, *arguments: str, name: str) -> str:
        """Create a login, and return the password that the command shows."""
        shown = self.headrace("login", *arguments, name)
        found = re.search(rf"{name}\s*\S\s*(\S+)", shown)
        assert found, shown
        return found[1]

    def publish(self, command: str, password: str) -> subprocess.CompletedProcess[str]:
        """Run README's `mosquitto_pub` on the other machine, with this password."""
        name, *arguments = shlex.split(command.replace("\\\n", " ").removeprefix("$ "))
        assert name == "mosquitto_pub"
        arguments = [password if item == "PASSWORD" else item for item in arguments]
        return self.machine.run(
            self.client, *arguments, cwd=self.folder, env=libraries(self.client.parents[2])
        )

    def raw(self) -> list[bytes]:
        """Readings in Kafka."""
        return [record.value for record in read_topic(self.kafka, self.profile.topics.raw)]


def mosquitto_pub() -> Path:
    """The installed program, or Debian's, unpacked."""
    found = shutil.which("mosquitto_pub")
    if found:
        return Path(found)
    with exclusively():
        return unpack_debian("mosquitto-clients", "usr/bin/mosquitto_pub", print) / (
            "usr/bin/mosquitto_pub"
        )


def write_settings(folder: Path, machine: Namespace) -> Path:
    """Write `.env` as `make env` does, with README's lines and free ports."""
    path = folder / ".env"
    write_env(path)
    (lines,) = readme("sh")
    # Other stacks of this machine may use the ports on other addresses.
    lines = lines.replace("0.0.0.0", machine.host)  # noqa: S104
    lines = lines.replace(":8883", f":8883,[{machine.host6}]:8883")
    given = {
        **{name: value or "" for name, value in dotenv_values(path).items()},
        **{name: value or "" for name, value in _parsed(lines).items()},
        "HEADRACE_STATE_DIR": str(folder / "state"),
        "HEADRACE_MQTT_WEBSOCKET_LISTEN": f"{machine.host}:8884",
        "HEADRACE_MQTT_PORT": str(free_port()),
        "HEADRACE_KAFKA_PORT": str(free_port()),
        "HEADRACE_KAFKA_CONTROLLER_PORT": str(free_port()),
        "HEADRACE_KAFKA_PARTITIONS": "1",
        "HEADRACE_BRIDGE_METRICS_PORT": str(free_port()),
        "HEADRACE_FLEET_SIZE": "1",
        # They are not needed here.
        "HEADRACE_OWN_SERVERS": "influxdb,postgres,mailbox",
    }
    path.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    return path


def _parsed(lines: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines.split())


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = make_folder()
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        machine = ends.enter_context(another_machine(HOST))
        env_file = write_settings(folder, machine)
        stack = load_stack(env_file)
        made = World(stack, folder, machine, mosquitto_pub(), *[None] * 2)  # type: ignore[arg-type]
        name, address = HOST, machine.host6
        made.headrace("certificate", name, address)
        shutil.copy(stack.settings.certificates_dir / "ca.crt", folder)
        servers = {
            server.name: server for server in stack.servers(find_programs(print, stack.bundled))
        }
        processes = {}
        for server in (servers["kafka"], servers["mosquitto"], stack.workers()[0]):
            process = Process(server, stack.log_folder / f"{server.name}.log")
            processes[server.name] = process
            ends.callback(process.kill)
            if server.name == "bridge":
                made.kafka.check_connection()
                provision_topics(made.kafka, made.profile, stack.settings)
            process.start()
        made.bridge, made.mosquitto = processes["bridge"], processes["mosquitto"]
        yield made


def test_a_device_publishes_by_readme_and_nobody_else_can(world: World) -> None:
    """TLS with its login and its topic, or nothing; over IPv4, IPv6 and secure WebSockets."""
    (command,) = (block for block in readme("console") if "mosquitto_pub" in block)
    password = world.password(name=DEVICE)
    world.mosquitto.signal(signal.SIGHUP)
    other = command.replace(f"emergency_generator/{DEVICE}", "emergency_generator/generator98")
    refused = {
        "wrong password": (command, "wrong"),
        "plain": (command.replace("--cafile ca.crt", ""), password),
        "another CA": (command.replace("ca.crt", "/etc/ssl/certs/ca-certificates.crt"), password),
        "loopback": (command.replace("8883", str(world.stack.settings.mqtt_port)), password),
    }
    for what, (attempt, secret) in refused.items():
        done = world.publish(attempt, secret)
        assert done.returncode, what
    # Not refused but dropped, as MQTT 3.1.1 has it. A bridge's name does not take its session.
    bridge = world.stack.settings.bridge_id
    world.publish(other.replace("-q 1", f"-q 1 -i {bridge}"), password)
    done = world.publish(other.replace("-q 1", "-q 1 -V 5"), password)
    assert "Not authorized" in done.stdout + done.stderr
    for attempt in (command, command.replace(HOST, world.machine.host6)):
        done = world.publish(attempt, password)
        assert done.returncode == 0, done.stderr
    topic, payload = (shlex.split(command)[shlex.split(command).index(o) + 1] for o in ("-t", "-m"))
    web = (WEBSOCKETS, HOST, "8884", DEVICE, password, topic, payload)
    done = world.machine.run(sys.executable, "-c", *web, cwd=world.folder)
    assert done.returncode == 0, done.stderr
    assert world.bridge.log.read_text().count("connected to the broker") == 1
    payloads = wait_for(lambda: len(found := world.raw()) >= 3 and found)
    assert [b'"generator99"' in payload for payload in payloads] == [True] * 3


def test_a_consumer_reads_by_readme_and_nothing_else(world: World) -> None:
    topics = world.profile.topics
    producer = world.kafka.producer()
    producer.produce(topics.downsampled, b'{"generatorID": "generator99"}')
    assert producer.flush(10) == 0
    password = world.password("--consumer", name=CONSUMER)
    (script,) = readme("python")
    script = script.replace("PASSWORD", password)
    with world.machine.running(sys.executable, "-c", script, cwd=world.folder) as output:
        wait_for(lambda: '{"generatorID": "generator99"}' in output.read_text())
    others = (topics.raw, topics.dead_letter, topics.status)
    given = (f"{HOST}:9094", password, world.profile.sink_group, topics.downsampled, *others)
    tries = world.machine.run(sys.executable, "-c", TRIES, *given, cwd=world.folder, seconds=60)
    answers = dict(line.split(": ", 1) for line in tries.stdout.splitlines())
    assert answers == {
        "topics": f"{topics.alarms} {topics.downsampled}",
        "wrong password": "_AUTHENTICATION",
        "plain": "_TRANSPORT",
        "group of the sinks": "GROUP_AUTHORIZATION_FAILED",
        "administer": "TOPIC_AUTHORIZATION_FAILED",
        **{f"read {topic}": "TOPIC_AUTHORIZATION_FAILED" for topic in others},
        **{
            f"write {topic}": "TOPIC_AUTHORIZATION_FAILED"
            for topic in (topics.downsampled, *others)
        },
    }, tries.stderr
    # The workers' way in is as it was: everything is allowed there.
    producer.produce(topics.raw, b"{}")
    assert producer.flush(10) == 0
    world.headrace("login", "--consumer", "--remove", CONSUMER)
    tries = world.machine.run(sys.executable, "-c", TRIES, *given[:4], cwd=world.folder)
    assert tries.stdout == "topics: _AUTHENTICATION\n"
