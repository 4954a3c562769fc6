"""Fixtures: the servers, and an installation for each test that needs one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.backbone import Backbone
from tests.support.installation import Installation

# The machine is shared: how long an example takes says nothing. Continuous integration tries
# the same examples each time, so that a change fails there only if it caused the failure.
settings.register_profile(
    "headrace",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("headrace")


class Spread(LoadScopeScheduling):
    """Spreads the tests over processes, each with servers of its own.

    The tests of a module stay together, for its fixtures, and so do all that need
    Airflow, which takes most of a minute to start.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = str(Path(path).parent)
        return folder if folder.endswith("e2e") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:
    return Spread(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and cannot be divided."""
    items.sort(key=lambda item: item.path.parent.name != "e2e")


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
