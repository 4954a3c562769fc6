"""DAGs for the tests, parsed as the stack parses them but without a database."""

from __future__ import annotations

import os
import tempfile
from contextlib import chdir
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# Airflow reads its environment when it is imported, so these variables come first.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="headrace-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(PROJECT / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(PROJECT / "plugins")
# `make env` writes this into every .env.
os.environ["HEADRACE_INSTALLED_AT"] = "2026-01-01T00:00:00Z"

from airflow.dag_processing.dagbag import DagBag  # noqa: E402


@pytest.fixture(scope="session")
def dag_bag(tmp_path_factory: pytest.TempPathFactory) -> DagBag:
    # In a folder without an .env file.
    with chdir(tmp_path_factory.mktemp("empty")):
        return DagBag(str(PROJECT / "dags"))
