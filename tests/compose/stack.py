"""A checkout with an ``.env`` of its own, and the containers that Compose makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from native.dotenv import write_env
from tests.compose.docker import Docker, DockerError
from tests.compose.outside import Outside
from tests.support.installation import PROJECT
from tests.support.processes import free_port

__all__ = ["PROJECT_LABEL", "SERVICE_LABEL", "Stack"]

_NOT_COPIED = shutil.ignore_patterns(
    ".venv", ".state", ".git", ".env", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis"
)
_UP = ("--profile", "fleet", "up", "--build", "--detach", "--wait")
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"


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
        #: The servers, as programs on this machine see them.
        self.outside = Outside(self.env_file)
        #: Volumes that containers of the project have used so far.
        self.volumes: set[str] = set()

    @property
    def env_file(self) -> Path:
        return self.checkout / ".env"

    def set_env(self, name: str, value: str) -> None:
        """Change a setting in ``.env``, or add it."""
        lines = [
            line
            for line in self.env_file.read_text().splitlines()
            if not line.startswith(f"{name}=")
        ]
        self.env_file.write_text("\n".join([*lines, f"{name}={value}", ""]))

    def _use_free_ports(self) -> None:
        text = re.sub(
            r"(?m)^(HEADRACE_\w+_PORT)=.*$",
            lambda match: f"{match[1]}={free_port()}",
            self.env_file.read_text(),
        )
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
        try:
            self.compose(*_UP, seconds=seconds)
        except (DockerError, subprocess.TimeoutExpired) as exc:
            exc.add_note(self.report())
            raise
        finally:
            self.note_volumes()
        return time.monotonic() - begun

    def cli(self, *arguments: str) -> Any:
        """Run ``headrace`` in a container of its own."""
        return self.compose("run", "--rm", "cli", *arguments, check=False)

    # What the engine knows

    def containers(self) -> dict[str, dict[str, Any]]:
        """The containers of the services, by service; not those of ``compose run``."""
        names = self.docker.lines(
            *["ps", "--all", "--quiet", "--filter", f"label={PROJECT_LABEL}={self.project}"],
            *["--filter", "label=com.docker.compose.oneoff=False"],
        )
        return {
            found["Config"]["Labels"][SERVICE_LABEL]: found
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

    def report(self) -> str:
        """The state and the end of the log of what is not healthy, for a test that fails."""
        pieces = []
        for service, state in self.unhealthy().items():
            log = self.compose("logs", "--no-color", "--tail", "30", service, check=False)
            pieces.append(f"--- {service}: {state}\n{log.stdout}")
        return "\n".join(pieces)


def _state(container: dict[str, Any]) -> str:
    """Health, if the container has a check; otherwise its state, and a failure's exit code."""
    state = container["State"]
    if state["Status"] == "running":
        return str(state["Health"]["Status"]) if "Health" in state else "running"
    # Provisioning ends with 0.
    done = state["Status"] == "exited" and state["ExitCode"] == 0
    return "running" if done else f"{state['Status']} {state['ExitCode']}"
