"""Keeping Airflow's own database and logs small, as an Airflow task."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from airflow.sdk import conf, task

from headrace.errors import TransientError
from headrace.models.window import rfc3339
from headrace.orchestration.stage_tasks import HEAL_POOL, stage_args

__all__ = ["cleanup"]

_log = structlog.get_logger(__name__)

KEPT = timedelta(days=30)


@task(**stage_args("cleanup"), pool=HEAL_POOL)
def cleanup() -> dict[str, int]:
    """Delete Airflow's records and logs that are older than 30 days.

    The live windows alone leave about six thousand task instances a day.
    """
    before = datetime.now(UTC) - KEPT
    _clean_database(before)
    return {"log_files": delete_old_logs(Path(conf.get("logging", "base_log_folder")), before)}


def _clean_database(before: datetime) -> None:
    # A task has no access to the database; Airflow's own command has.
    command = [
        *(sys.executable, "-m", "airflow", "db", "clean"),
        *("--clean-before-timestamp", rfc3339(before)),
        *("--skip-archive", "--yes"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        msg = f"airflow db clean failed ({done.returncode}): {done.stderr[-2000:]}"
        raise TransientError(msg)


def delete_old_logs(folder: Path, before: datetime) -> int:
    """Delete log files last written before some moment, and folders that are left empty."""
    deleted = 0
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.stat().st_mtime < before.timestamp():
            path.unlink()
            deleted += 1
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    _log.info("deleted old logs", files=deleted)
    return deleted
