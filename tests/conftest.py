"""Fixtures for the servers and for installations."""

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

# Times of examples vary on a shared machine, so they have no deadline. Continuous integration
# uses the same examples each time, so only a change in the code can make a test fail.
settings.register_profile(
    "headrace",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("headrace")


class Spread(LoadScopeScheduling):
    """Distributes the tests over processes, each with its own servers.

    The tests of a module stay together because they share fixtures. All tests with
    Airflow stay together because Airflow takes most of a minute to start.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = str(Path(path).parent)
        return folder if folder.endswith("e2e") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:
    return Spread(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest group, which cannot be split."""
    items.sort(key=lambda item: item.path.parent.name != "e2e")


@pytest.fixture(scope="session")
def running_backbone() -> Iterator[Backbone]:
    """Servers for the whole test run."""
    backbone = Backbone()
    try:
        backbone.ensure_running()
        yield backbone
    finally:
        backbone.close()


@pytest.fixture
def backbone(running_backbone: Backbone) -> Backbone:
    """The servers, restarted if the previous test stopped them."""
    running_backbone.ensure_running()
    return running_backbone


@pytest.fixture
def install(backbone: Backbone, tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Create provisioned installations, whose workers stop after the test."""
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
