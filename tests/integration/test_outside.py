"""Devices and consumers on another machine, with the commands of README.

The machine is a network namespace, which only root can create. Otherwise these tests fail with a
message.
"""

from __future__ import annotations

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
from native.stack import Stack, find_programs, load_stack
from tests.support.backbone import make_folder
from tests.support.namespace import Namespace, another_machine
from tests.support.outside import CONSUMER, DEVICE, HOST, Outsider, password_in, readme
from tests.support.processes import Process, free_port, wait_for


@dataclass
class World:
    """The bundled broker and Kafka configured by `.env`, a bridge, and another machine."""

    stack: Stack
    folder: Path
    outsider: Outsider
    bridge: Process
    mosquitto: Process

    @property
    def profile(self) -> Profile:
        return load_profile(self.stack.settings.profile)

    @property
    def kafka(self) -> Kafka:
        return Kafka.from_settings(self.stack.settings)

    def headrace(self, *arguments: str) -> str:
        """Run a `headrace` command in the folder of `.env`; return its output."""
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

    def raw(self) -> list[bytes]:
        """Return the readings in Kafka."""
        return [record.value for record in read_topic(self.kafka, self.profile.topics.raw)]


def write_settings(folder: Path, machine: Namespace) -> Path:
    """Write `.env` as `make env` does, with README's lines and free ports."""
    path = folder / ".env"
    write_env(path)
    (lines,) = readme("sh")
    # Other stacks on this machine can use the ports on other addresses.
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
        # These servers are not needed here.
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
        made = World(stack, folder, Outsider(machine, folder), *[None] * 2)  # type: ignore[arg-type]
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


def test_only_a_device_with_its_login_can_publish_by_readme(world: World) -> None:
    """TLS, the device's login and its topic are required, over IPv4, IPv6 and WebSockets."""
    password = password_in(world.headrace("login", DEVICE), DEVICE)
    world.mosquitto.signal(signal.SIGHUP)
    settings = world.stack.settings
    world.outsider.check_device(password, plain_port=settings.mqtt_port, bridge=settings.bridge_id)
    (command,) = (block for block in readme("console") if "mosquitto_pub" in block)
    by_ipv6 = command.replace(HOST, world.outsider.machine.host6)
    done = world.outsider.publish(by_ipv6, password)
    assert done.returncode == 0, done.stderr
    assert world.bridge.log.read_text().count("connected to the broker") == 1
    payloads = wait_for(lambda: len(found := world.raw()) >= 3 and found)
    assert [b'"generator99"' in payload for payload in payloads] == [True] * 3


def test_a_consumer_can_only_read_by_readme(world: World) -> None:
    topics = world.profile.topics
    row = '{"generatorID": "generator99"}'
    producer = world.kafka.producer()
    producer.produce(topics.downsampled, row.encode())
    assert producer.flush(10) == 0
    password = password_in(world.headrace("login", "--consumer", CONSUMER), CONSUMER)
    world.outsider.read_rows(password, row)
    world.outsider.check_consumer(password, world.profile)
    # The workers' listener on loopback still allows everything.
    producer.produce(topics.raw, b"{}")
    assert producer.flush(10) == 0
    world.headrace("login", "--consumer", "--remove", CONSUMER)
    world.outsider.check_removed(password)
