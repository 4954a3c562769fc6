"""Fixtures: the servers, and an installation for each test that wants one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.backbone import Backbone
from tests.support.installation import Installation

# The machine is shared: how long an example takes says nothing.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")


# Before xdist's own hook, which reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the tests over processes, each with servers of its own.

    Airflow takes long to start and its tests take longest, so those stay together and
    begin first. The tests of an integration module stay together, for its fixtures.
    """
    items.sort(key=lambda item: item.path.parent.name != "e2e")
    for item in items:
        folder = item.path.parent.name
        if folder in ("e2e", "integration"):
            group = folder if folder == "e2e" else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def running_backbone() -> Iterator[Backbone]:
    """Servers that live as long as the test run."""
    backbone = Backbone()
    try:
        backbone.ensure_running()
        yield backbone
    finally:
        backbone.close()


@pytest.fixture
def backbone(running_backbone: Backbone) -> Backbone:
    """The servers, all of them running, whatever the test before has done to them."""
    running_backbone.ensure_running()
    return running_backbone


@pytest.fixture
def install(backbone: Backbone, tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Makes installations, provisioned, whose workers end with the test."""
    made: list[Installation] = []

    def make(changes: dict[str, Any] | None = None, **env: str) -> Installation:
        folder = tmp_path / f"installation{len(made)}"
        installation = Installation(backbone, folder, changes or {}, env)
        made.append(installation)
        installation.provision()
        return installation

    try:
        yield make
    finally:
        for installation in made:
            installation.close()


@pytest.fixture
def installation(install: Callable[..., Installation]) -> Installation:
    """A provisioned installation without workers."""
    return install()
