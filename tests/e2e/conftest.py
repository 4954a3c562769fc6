"""One Airflow for all end-to-end tests: it takes most of a minute to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.airflow import AirflowStack
from tests.support.backbone import Backbone


@pytest.fixture(scope="session")
def running_airflow(
    running_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    """Airflow, its workers, and nothing that publishes."""
    running_backbone.ensure_running()
    stack = AirflowStack(running_backbone, tmp_path_factory.mktemp("airflow"))
    try:
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
