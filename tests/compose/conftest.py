"""Fixtures: one stack, started once; the tests of `test_stack.py` take it through its life."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.docker import Docker
from tests.compose.images import pinned_images
from tests.compose.stack import Stack


@pytest.fixture(scope="session")
def docker() -> Docker:
    """A client of the engine, which has all images."""
    client = Docker.of_environment()
    missing = [name for name in pinned_images().values() if not client.has_image(name)]
    assert not missing, f"no engine, or without {missing}: run `make test-compose`"
    return client


@pytest.fixture(scope="session")
def stack(docker: Docker) -> Iterator[Stack]:
    """A checkout that is not started yet; nothing of it remains after the tests."""
    # In an engine of ours always the same name, so that it finds its images built.
    name = "headrace-test" if docker.private else f"headrace-test-{os.getpid()}"
    parent = os.environ.get("TEST_COMPOSE_FOLDER")
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        Path(folder).chmod(0o755)
        stack = Stack(docker, Path(folder) / name)
        try:
            yield stack
        finally:
            remove = ["down", "--volumes", "--remove-orphans", "--timeout", "0"]
            if not docker.private:
                remove += ["--rmi", "local"]
            stack.compose("--profile", "*", *remove, check=False)
