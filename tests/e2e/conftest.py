"""One Airflow for all end-to-end tests, because it takes about a minute to start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from headrace.models.window import WindowRange, rfc3339
from tests.support.airflow import AirflowStack
from tests.support.backbone import Backbone
from tests.support.installation import PROJECT
from tests.support.ranges import hours_ago, windows

#: Base URL of Airflow for operators. The tests only check that links begin with it.
PUBLIC_URL = "http://airflow.example.org"


@pytest.fixture(scope="session")
def missed() -> WindowRange:
    """Two hours of windows that passed while Airflow was not running."""
    return windows(hours_ago(2), 119)


@pytest.fixture(scope="session")
def running_airflow(
    running_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory, missed: WindowRange
) -> Iterator[AirflowStack]:
    """Airflow without bridge and sink, with Flux files that tests may change.

    One device, `early`, has a reading in each of the windows that Airflow missed.
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
            "HEADRACE_SETTLE_LIMIT": "15s",
            # This proxy does not exist: Airflow must reach its servers directly.
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            # Airflow listens on every address, and links in mails use the operator's host name.
            "HEADRACE_AIRFLOW_HOST": "0.0.0.0",  # noqa: S104
            "HEADRACE_AIRFLOW_URL": PUBLIC_URL,
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
    """Airflow with all servers running, and an empty mailbox."""
    assert backbone
    running_airflow.mailbox.mails.clear()
    return running_airflow
