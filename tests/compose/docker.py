"""A Docker client, and the engine that it speaks to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Docker", "DockerError"]


class DockerError(AssertionError):
    """A command of Docker failed; the message has the end of its output."""


@dataclass(frozen=True)
class Docker:
    """A Docker client that is configured for one engine.

    Parameters
    ----------
    client
        The command of the client.
    environment
        What the client needs in its environment, such as the engine's socket.
    private
        Whether the engine belongs to the tests alone.
    """

    client: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    private: bool = False

    @classmethod
    def of_environment(cls) -> Docker:
        """The client that ``python -m tests.compose`` has chosen, or the machine's own."""
        text = os.environ.get("TEST_DOCKER")
        if text:
            content = json.loads(text)
            return cls(tuple(content["client"]), content["environment"], content["private"])
        return cls((shutil.which("docker") or "docker",))

    def as_environment(self) -> dict[str, str]:
        """What `of_environment` reads, for another process."""
        content = {
            "client": self.client,
            "environment": dict(self.environment),
            "private": self.private,
        }
        return {"TEST_DOCKER": json.dumps(content)}

    def run(
        self,
        *arguments: str | Path,
        seconds: float = 120,
        cwd: Path | None = None,
        check: bool = True,
        data: bytes | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the client to its end.

        Raises
        ------
        DockerError
            If it fails, and `check` is set.
        """
        done = subprocess.run(
            [*self.client, *map(str, arguments)],
            cwd=cwd,
            env=self.whole_environment(),
            input=None if data is None else data.decode(),
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            command = " ".join(map(str, arguments))
            msg = (
                f"docker {command} ended with {done.returncode}:\n"
                f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
            )
            raise DockerError(msg)
        return done

    def whole_environment(self) -> dict[str, str]:
        """The environment of the client, without settings of ours that happen to be there."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HEADRACE_", "COMPOSE_"))
        }
        return {**kept, **self.environment}

    def inspect(self, kind: str, *names: str) -> list[dict[str, Any]]:
        """What the engine knows of containers, images, volumes or networks."""
        if not names:
            return []
        found: list[dict[str, Any]] = json.loads(self.run(kind, "inspect", *names).stdout)
        return found

    def answers(self) -> bool:
        """Whether the engine can be reached."""
        try:
            return self.run("info", seconds=30, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def has_image(self, name: str) -> bool:
        return self.run("image", "inspect", name, check=False).returncode == 0

    def lines(self, *arguments: str) -> Sequence[str]:
        """The lines that a command prints."""
        return self.run(*arguments).stdout.split("\n")[:-1]
