"""An environment with Airflow and the wheel, as an operator installs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.wheel import build_wheel, new_environment


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands. The FAB auth manager needs an older python-dateutil."""
    folder = tmp_path_factory.mktemp("stock")
    packages = [f"{build_wheel(folder)}[airflow]", "apache-airflow-providers-fab"]
    return new_environment(folder / "venv", packages, without=["python-dateutil"])
