"""The machine's own Docker engine, if it has one that can run the tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from headrace.errors import ConfigurationError
from native.programs import Progress, exclusively
from tests.compose.docker import Docker
from tests.compose.roots import Unavailable
from tools.compose_lint import find_compose

__all__ = ["machine_engine"]

#: What docker-compose.yaml requires, as it says itself.
_ENGINE = (25, 0)
_COMPOSE = (2, 24)


def machine_engine(folder: Path, progress: Progress) -> Docker:
    """Return a client of the machine's engine.

    Parameters
    ----------
    folder
        For a configuration of the client, if it needs one.
    progress
        Receives a short description of each step.

    Raises
    ------
    Unavailable
        If there is none, or it is too old.
    """
    client = shutil.which("docker")
    if client is None:
        msg = "there is no `docker` on PATH"
        raise Unavailable(msg)
    docker = Docker((client,))
    if not docker.answers():
        msg = "`docker info` finds no engine"
        raise Unavailable(msg)
    text = docker.run("version", "--format", "{{.Server.Version}}").stdout.strip()
    if _version(text) < _ENGINE:
        msg = f"the engine is version {text}, and docker-compose.yaml requires {_ENGINE[0]}"
        raise Unavailable(msg)
    environment: dict[str, str] = {}
    if _plugin_version(docker, "buildx") < (0, 17):
        environment["DOCKER_BUILDKIT"] = "0"
    if _plugin_version(docker, "compose") < _COMPOSE:
        environment.update(_with_compose(docker, folder, progress))
    return Docker((client,), environment)


def _plugin_version(docker: Docker, plugin: str) -> tuple[int, ...]:
    done = docker.run(plugin, "version", check=False)
    return _version(done.stdout) if done.returncode == 0 else (0, 0)


def _version(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _with_compose(docker: Docker, folder: Path, progress: Progress) -> dict[str, str]:
    """Configure the client for a Compose of ours, and for the same engine as before."""
    try:
        with exclusively():
            compose = find_compose(progress).path
    except ConfigurationError as exc:
        msg = f"there is no Compose 2.24, and it can't be built: {exc}"
        raise Unavailable(msg) from exc
    plugins = folder / "client" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(compose)
    host = docker.run("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").stdout
    return {"DOCKER_CONFIG": str(plugins.parent), "DOCKER_HOST": host.strip()}
