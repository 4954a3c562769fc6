"""The images promise what ``images.yaml`` notes of the official ones."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.compose.docker import Docker
from tests.compose.images import facts, pinned_images
from tests.support.installation import PROJECT

pytestmark = pytest.mark.compose

#: Prints a line for each tool, user and folder. Runs in each image, with its `sh`.
_ASK = """
for tool in $TOOLS; do
    if command -v "$tool" > /dev/null; then echo "tool $tool yes"; else echo "tool $tool no"; fi
done
for user in $USERS; do echo "user $user $(id -u "$user")"; done
for folder in $FOLDERS; do echo "folder $folder $(stat -c '%u:%g %a' "$folder")"; done
"""


def asked(docker: Docker, image: str, promise: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """What a container of the image says of its tools, users and folders."""
    variables = {
        "TOOLS": [*promise["tools"], *promise.get("lacks", [])],
        "USERS": promise.get("users", {}),
        "FOLDERS": promise.get("folders", {}),
    }
    settings = [f"--env={name}={' '.join(words)}" for name, words in variables.items()]
    done = docker.run("run", "--rm", *settings, "--entrypoint", "sh", image, "-c", _ASK)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {(kind, name): rest for kind, name, *rest in lines}


def test_facts_are_noted_of_every_image() -> None:
    assert set(facts()) == set(pinned_images())


@pytest.mark.parametrize("name", sorted(facts()))
def test_the_image_promises_what_the_official_one_does(docker: Docker, name: str) -> None:
    promise, image = facts()[name], pinned_images()[name]
    (found,) = docker.inspect("image", image)
    config = found["Config"]
    assert (config["Entrypoint"] or []) == promise["entrypoint"]
    assert (config["Cmd"] or []) == promise["command"]
    assert config["User"] == promise["user"]
    assert config["WorkingDir"] in (promise.get("workdir", "/"), promise.get("workdir", ""))
    assert sorted(config.get("Volumes") or {}) == sorted(promise.get("volumes", []))
    assert set(config.get("ExposedPorts") or {}) == set(promise.get("ports", []))
    assert config.get("StopSignal", "SIGTERM") == promise.get("stop_signal", "SIGTERM")
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment.items() >= promise.get("environment", {}).items()

    answers = asked(docker, image, promise)
    for tool in promise["tools"]:
        assert answers["tool", tool] == ["yes"], tool
    for tool in promise.get("lacks", []):
        assert answers["tool", tool] == ["no"], tool
    for user, number in promise.get("users", {}).items():
        assert answers["user", user] == [str(number)]
    for folder, expected in promise.get("folders", {}).items():
        owner, mode = answers["folder", folder]
        assert (folder, owner) == (folder, expected["owner"])
        assert (folder, mode) == (folder, expected.get("mode", mode))


def test_health_checks_use_only_what_the_official_image_has() -> None:
    services = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["services"]
    checked = 0
    for service in services.values():
        name = service.get("image", "").partition(":")[0]
        if name in facts():
            assert service["healthcheck"]["test"][1] in facts()[name]["tools"], name
            checked += 1
    assert checked == len(set(facts()) - images_of_the_dockerfile())


def images_of_the_dockerfile() -> set[str]:
    """The images that only our own are built from."""
    text = (PROJECT / "docker-compose.yaml").read_text()
    return {name for name in facts() if f"image: {name}:" not in text}
