"""Old logs are deleted while other processes write and delete; the database is found."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSkipException
from sqlalchemy.engine import make_url

from headrace.errors import ConfigurationError, TransientError
from headrace.orchestration import cleanup_task, connections
from headrace.orchestration.cleanup_task import delete_old_logs

BEFORE = datetime.now(UTC) - timedelta(days=30)
OLD = time.time() - 40 * 86400


def write(path: Path, *, old: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a line")
    if old:
        make_old(path)
    return path


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def test_only_old_logs_and_their_folders_are_deleted(tmp_path: Path) -> None:
    gone = [
        write(tmp_path / "dag_id=a/run_id=1/task_id=t/attempt=1.log", old=True),
        write(tmp_path / "dag_id=a/run_id=1/task_id=t/attempt=1.log.trigger.7.log", old=True),
        write(tmp_path / "dag_processor/2026-01-01/a.py.log", old=True),
    ]
    stay = [
        write(tmp_path / "dag_id=a/run_id=2/attempt=1.log", old=False),
        write(tmp_path / "dag_id=a/run_id=3/attempt=1.log", old=True),
        write(tmp_path / "alerts.lock", old=True),
        write(tmp_path / "notes.txt", old=True),
    ]
    # An old log with a new entry.
    os.utime(stay[1])
    # A folder that a starting task has just created.
    (tmp_path / "dag_id=a/run_id=4").mkdir()
    for folder in (gone[0].parent, gone[0].parents[1], gone[2].parent):
        make_old(folder)
    assert delete_old_logs(tmp_path, BEFORE) == len(gone)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stay)
    for folder in (gone[0].parents[1], gone[2].parent):
        assert not folder.exists()
    assert (tmp_path / "dag_id=a/run_id=4").is_dir()


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/a.log", old=True)
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "latest").symlink_to(tmp_path / "outside")
    (logs / "dangling.log").symlink_to(tmp_path / "nothing")
    (logs / "new").symlink_to(tmp_path / "outside")
    make_old(logs / "latest", logs / "dangling.log")
    assert delete_old_logs(logs, BEFORE) == 2
    assert outside.exists()
    assert [path.name for path in logs.iterdir()] == ["new"]


def test_files_deleted_by_another_process_are_not_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(3):
        path = write(tmp_path / f"run_id={number}/a.log", old=True)
        make_old(path.parent)
    walk = os.walk

    def walk_while_others_delete(*args: Any, **kwargs: Any) -> Any:
        for root, folders, files in walk(*args, **kwargs):
            yield root, folders, files
            if root.endswith("run_id=1"):
                (Path(root) / "a.log").unlink()
                Path(root).rmdir()
            if root.endswith("run_id=2"):
                write(Path(root) / "b.log", old=False)

    monkeypatch.setattr(os, "walk", walk_while_others_delete)
    assert delete_old_logs(tmp_path, BEFORE) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run_id=2"]


def test_a_missing_log_folder_is_not_an_error(tmp_path: Path) -> None:
    assert delete_old_logs(tmp_path / "nothing", BEFORE) == 0


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(
        conn_type="postgres",
        host="db",
        port=5432,
        login="airflow",
        password="p@ss/word?#%",
        schema="",
        extra_dejson={},
    )
    monkeypatch.setattr(connections.BaseHook, "get_connection", lambda _: found)
    return found


def test_the_command_uses_the_database_of_the_connection(
    monkeypatch: pytest.MonkeyPatch, connection: SimpleNamespace
) -> None:
    assert connection.host == "db"
    calls: list[dict[str, Any]] = []

    def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        calls.append(kwargs["env"])
        output = (
            "Found 12 rows meeting deletion criteria.\nx\nFound 3 rows meeting deletion criteria"
        )
        return subprocess.CompletedProcess(command, 0, output, "")

    # Airflow sets these for a task.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    monkeypatch.setenv("AIRFLOW__CORE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    monkeypatch.setattr(subprocess, "run", run)
    url = connections.metadata_url()
    assert url is not None
    assert cleanup_task._clean_database(BEFORE, url) == 15
    (environment,) = calls
    assert "airflow-db-not-allowed:///" not in environment.values()
    assert (
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        == "postgresql+psycopg2://airflow:p%40ss%2Fword%3F%23%25@db:5432/airflow"
    )


def test_a_failed_command_is_retried_and_its_output_reported(
    monkeypatch: pytest.MonkeyPatch, connection: SimpleNamespace
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "connection refused")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(TransientError, match="ended with 1: connection refused") as info:
        cleanup_task._clean_database(BEFORE, "postgresql+psycopg2://airflow@db/airflow")
    assert connection.password not in str(info.value)


def test_without_the_connection_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_connection(name: str) -> None:
        raise AirflowNotFoundException(name)

    def never(*_: Any) -> None:
        pytest.fail("nothing may be deleted")

    monkeypatch.setattr(connections.BaseHook, "get_connection", get_connection)
    monkeypatch.setattr(cleanup_task, "delete_old_logs", never)
    monkeypatch.setattr(cleanup_task, "_clean_database", never)
    with pytest.raises(AirflowSkipException, match=r"airflow_metadata is missing.*create it"):
        cleanup_task.cleanup.function()


def test_a_database_of_an_unknown_kind_is_refused(connection: SimpleNamespace) -> None:
    connection.conn_type = "redis"
    with pytest.raises(ConfigurationError, match="'redis': it must be one of postgres"):
        connections.metadata_url()


def test_the_connection_says_how_the_database_is_protected(connection: SimpleNamespace) -> None:
    connection.extra_dejson = {"sslmode": "verify-full", "sslrootcert": "/ca.pem", "other": "x"}
    url = make_url(str(connections.metadata_url()))
    assert url.query == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
