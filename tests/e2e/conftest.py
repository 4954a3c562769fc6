"""One Airflow for all end-to-end tests: it takes most of a minute to start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from headrace.models.window import WindowRange, rfc3339
from tests.support.airflow import AirflowStack
from tests.support.backbone import Backbone
from tests.support.installation import PROJECT
from tests.support.ranges import hours_ago, windows


@pytest.fixture(scope="session")
def missed() -> WindowRange:
    """Two hours of windows, in which the installation was there and Airflow was not."""
    return windows(hours_ago(2), 119)


@pytest.fixture(scope="session")
def running_airflow(
    running_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory, missed: WindowRange
) -> Iterator[AirflowStack]:
    """Airflow, its workers, Flux that a test may spoil, and nothing that publishes.

    One device, `early`, has reported in each of the windows that Airflow has missed.
    """
    running_backbone.ensure_running()
    folder = tmp_path_factory.mktemp("airflow")
    shutil.copytree(PROJECT / "include" / "flux", folder / "flux")
    stack = AirflowStack(
        running_backbone,
        folder,
        {
            "HEADRACE_INSTALLED_AT": rfc3339(missed.start),
            "HEADRACE_FLUX_DIR": str(folder / "flux"),
        },
    )
    try:
        stack.installation.store(*(("early", start, {}) for start in missed.starts()))
        stack.start()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def airflow(running_airflow: AirflowStack, backbone: Backbone) -> AirflowStack:
    """Airflow on servers that are all up, and an empty mailbox."""
    assert backbone
    running_airflow.mailbox.mails.clear()
    return running_airflow
