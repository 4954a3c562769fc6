"""A checkout with an ``.env`` of its own, and the containers that Compose makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from confluent_kafka import Consumer, KafkaError
from dotenv import dotenv_values

from headrace.settings import Settings, load_settings
from native.dotenv import write_env
from native.servers import LOOPBACK
from tests.compose.docker import Docker
from tests.support.installation import PROJECT
from tests.support.processes import free_port

__all__ = ["Events", "Stack"]

_NOT_COPIED = shutil.ignore_patterns(
    ".venv", ".state", ".git", ".env", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis"
)
_UP = ("--profile", "fleet", "up", "--build", "--detach", "--wait")
_PROJECT_LABEL = "com.docker.compose.project"
_SERVICE_LABEL = "com.docker.compose.service"


class Stack:
    """The stack of one checkout.

    Parameters
    ----------
    docker
        A client of the engine.
    checkout
        Folder of the copy; its name becomes the name of the project.
    """

    def __init__(self, docker: Docker, checkout: Path) -> None:
        self.docker = docker
        self.checkout = checkout
        self.project = checkout.name
        shutil.copytree(PROJECT, checkout, ignore=_NOT_COPIED)
        write_env(self.env_file)
        self._use_free_ports()
        #: Volumes and networks that containers of the project have used so far.
        self.volumes: set[str] = set()
        self._token: str | None = None

    @property
    def env_file(self) -> Path:
        return self.checkout / ".env"

    @property
    def env(self) -> dict[str, str]:
        return {name: value or "" for name, value in dotenv_values(self.env_file).items()}

    @property
    def settings(self) -> Settings:
        """The settings of a program outside the containers."""
        return load_settings(self.env_file)

    def port(self, name: str) -> int:
        return int(self.env[f"HEADRACE_{name}_PORT"])

    def set_env(self, name: str, value: str) -> None:
        """Change a setting in ``.env``, or add it."""
        lines = [
            line
            for line in self.env_file.read_text().splitlines()
            if not line.startswith(f"{name}=")
        ]
        self.env_file.write_text("\n".join([*lines, f"{name}={value}", ""]))

    def _use_free_ports(self) -> None:
        text = self.env_file.read_text()
        text = re.sub(
            r"(?m)^(HEADRACE_\w+_PORT)=.*$", lambda match: f"{match[1]}={free_port()}", text
        )
        kafka = re.search(r"(?m)^HEADRACE_KAFKA_PORT=(\d+)$", text)
        port = kafka[1] if kafka else str(free_port())
        text = re.sub(r"(?m)^(HEADRACE_KAFKA_BOOTSTRAP)=.*$", rf"\g<1>={LOOPBACK}:{port}", text)
        self.env_file.write_text(text)

    # Commands, as README and docs/docker.md have them

    def compose(self, *arguments: str, seconds: float = 120, check: bool = True) -> Any:
        """Run ``docker compose`` in the checkout."""
        return self.docker.run(
            "compose", *arguments, cwd=self.checkout, seconds=seconds, check=check
        )

    def up(self, seconds: float) -> float:
        """Build and start everything, wait until it is healthy; returns the time it took."""
        begun = time.monotonic()
        self.compose(*_UP, seconds=seconds)
        self.note_volumes()
        return time.monotonic() - begun

    def cli(self, *arguments: str) -> Any:
        """Run ``headrace`` in a container of its own."""
        return self.compose("run", "--rm", "cli", *arguments, check=False)

    # What the engine knows

    def containers(self) -> dict[str, dict[str, Any]]:
        """The containers of the services, by service; not those of ``compose run``."""
        names = self.docker.lines(
            *["ps", "--all", "--quiet", "--filter", f"label={_PROJECT_LABEL}={self.project}"],
            *["--filter", "label=com.docker.compose.oneoff=False"],
        )
        return {
            found["Config"]["Labels"][_SERVICE_LABEL]: found
            for found in self.docker.inspect("container", *names)
        }

    def container(self, service: str) -> dict[str, Any]:
        return self.containers()[service]

    def note_volumes(self) -> None:
        """Remember the volumes of all containers, also those without a name of ours."""
        for found in self.containers().values():
            self.volumes |= {
                mount["Name"] for mount in found["Mounts"] if mount["Type"] == "volume"
            }

    def exec(self, service: str, *command: str, check: bool = True) -> Any:
        """Run a command in a service's container."""
        return self.compose("exec", "-T", service, *command, check=check)

    def unhealthy(self) -> dict[str, str]:
        """State of the services that are neither healthy nor running without a check."""
        states = {name: _state(found) for name, found in self.containers().items()}
        return {
            name: state for name, state in states.items() if state not in ("healthy", "running")
        }

    # The servers, as a program on this machine sees them

    def http(self, port: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        url = f"http://{LOOPBACK}:{self.port(port)}{path}"
        method = options.pop("method", "GET")
        return urllib3.request(method, url, timeout=20, retries=False, **options)

    def airflow(
        self, method: str, path: str, body: Any = None, *, api: str = "/api/v2"
    ) -> urllib3.BaseHTTPResponse:
        """Call Airflow as the user in ``.env``."""
        if self._token is None:
            login = {
                "username": self.env["HEADRACE_AIRFLOW_USER"],
                "password": self.env["HEADRACE_AIRFLOW_PASSWORD"],
            }
            answer = self.http("AIRFLOW", "/auth/token", method="POST", json=login)
            assert answer.status in (200, 201), answer.data
            self._token = answer.json()["access_token"]
        return self.http(
            "AIRFLOW",
            f"{api}{path}",
            method=method,
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
        )

    def mails(self) -> list[dict[str, Any]]:
        """What the mailbox has."""
        found: list[dict[str, Any]] = self.http("MAILBOX", "/email").json()
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Everything that a new `read_committed` consumer gets of the topic of rows."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.env["HEADRACE_KAFKA_BOOTSTRAP"],
                "group.id": f"test-{time.monotonic_ns()}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            return list(_consume(consumer, "kafka_downsampled"))
        finally:
            consumer.close()


def _consume(consumer: Consumer, topic: str) -> Iterator[dict[str, Any]]:
    partitions = len(consumer.list_topics(topic, 30).topics[topic].partitions)
    consumer.subscribe([topic])
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"the end of {topic} is not reached"
        message = consumer.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is None:
            yield json.loads(message.value())
        elif error.code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
        else:
            raise AssertionError(error.str())


def _state(container: dict[str, Any]) -> str:
    """Health, if the container has a check; otherwise its state, and a failure's exit code."""
    state = container["State"]
    if state["Status"] == "running":
        return str(state["Health"]["Status"]) if "Health" in state else "running"
    # Provisioning ends with 0.
    done = state["Status"] == "exited" and state["ExitCode"] == 0
    return "running" if done else f"{state['Status']} {state['ExitCode']}"


class Events:
    """Notes what happens to the containers of a project, and when."""

    def __init__(self, stack: Stack) -> None:

        self._found: list[tuple[str, str, int]] = []
        self._process = subprocess.Popen(
            [
                *[*stack.docker.client, "events", "--format", "json", "--filter"],
                *["type=container", "--filter", f"label={_PROJECT_LABEL}={stack.project}"],
            ],
            env=stack.docker.whole_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            attributes = event["Actor"]["Attributes"]
            action = event["Action"]
            if action == "die":
                action = f"ended {attributes['exitCode']}"
            self._found.append((attributes[_SERVICE_LABEL], action, event["timeNano"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def first(self, service: str, action: str) -> int:
        """When something first happened to a service's container, in nanoseconds."""
        times = [when for name, what, when in self._found if (name, what) == (service, action)]
        assert times, f"{service}: no {action!r} among {[e[:2] for e in self._found]}"
        return min(times)
