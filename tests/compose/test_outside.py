"""A device and a consumer on another machine, by the commands of README, with `.env` alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from headrace.profile import Profile, load_profile
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import read_topic
from tests.compose.docker import Docker
from tests.compose.stack import Stack
from tests.support.namespace import another_machine
from tests.support.outside import CONSUMER, DEVICE, HOST, Outsider, password_in, readme
from tests.support.processes import wait_for

pytestmark = pytest.mark.compose

_UP_SECONDS = 5 * 60


@dataclass
class Opened:
    """The bundled broker and Kafka, a bridge, and another machine."""

    stack: Stack
    outsider: Outsider

    @property
    def profile(self) -> Profile:
        return load_profile(self.stack.outside.settings.profile)

    def password(self, name: str, *options: str) -> str:
        """Create a login, and return its password."""
        done = self.stack.cli("login", *options, name)
        assert done.returncode == 0, done.stderr
        return password_in(done.stdout, name)


@pytest.fixture(scope="module")
def opened(docker: Docker) -> Iterator[Opened]:
    name = "headrace-outside" if docker.private else f"headrace-outside-{os.getpid()}"
    parent = os.environ.get("TEST_COMPOSE_FOLDER")
    with another_machine(HOST) as machine, tempfile.TemporaryDirectory(dir=parent) as folder:
        Path(folder).chmod(0o755)
        stack = Stack(docker, Path(folder) / name)
        (lines,) = readme("sh")
        for line in lines.split():
            # Other stacks of this machine may use the ports on other addresses.
            variable, value = line.replace("0.0.0.0", machine.host).split("=", 1)  # noqa: S104
            stack.set_env(variable, value)
        stack.set_env("HEADRACE_MQTT_WEBSOCKET_LISTEN", f"{machine.host}:8884")
        try:
            refused = stack.compose("up", "--build", "provision", seconds=_UP_SECONDS, check=False)
            assert "also add" in refused.stdout, refused.stdout + refused.stderr
            stack.set_env("COMPOSE_FILE", "docker-compose.yaml:docker/outside.yaml")
            missing = stack.compose("run", "--rm", "certificates", check=False)
            assert "headrace certificate NAME" in missing.stderr
            done = stack.cli("certificate", HOST)
            assert done.returncode == 0, done.stderr
            shown = stack.cli("certificate", "--show-ca").stdout
            (Path(folder) / "ca.crt").write_text(shown)
            stack.compose("up", "--detach", "--wait", "bridge", seconds=_UP_SECONDS)
            yield Opened(stack, Outsider(machine, Path(folder)))
        finally:
            stack.compose("--profile", "*", "down", "--volumes", "--timeout", "0", check=False)
            if not docker.private:
                docker.run("image", "rm", f"{name}-workers:local", check=False)


def test_only_a_device_with_its_login_can_publish_by_readme(opened: Opened) -> None:
    stack = opened.stack
    password = opened.password(DEVICE)
    stack.compose("kill", "--signal", "HUP", "mosquitto")
    opened.outsider.check_device(
        password, plain_port=stack.outside.port("MQTT"), bridge=stack.outside.settings.bridge_id
    )
    kafka, topics = Kafka.from_settings(stack.outside.settings), opened.profile.topics
    payloads = wait_for(
        lambda: (
            len(found := [record.value for record in read_topic(kafka, topics.raw)]) >= 2 and found
        )
    )
    assert [b'"generator99"' in payload for payload in payloads] == [True] * 2


def test_a_consumer_can_only_read_by_readme(opened: Opened) -> None:
    row = '{"generatorID": "generator99"}'
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{opened.stack.outside.port('KAFKA')}"})
    producer.produce(opened.profile.topics.downsampled, row.encode())
    assert producer.flush(10) == 0
    password = opened.password(CONSUMER, "--consumer")
    opened.outsider.read_rows(password, row)
    opened.outsider.check_consumer(password, opened.profile)
