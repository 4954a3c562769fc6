"""Deletes old records and logs of Airflow, as an Airflow task.

Airflow hides its database from tasks: their environment has an unusable URL. So the task takes the
address from the Connection `airflow_metadata`, which an operator provides for this purpose, and
runs Airflow's command with it. Without the Connection it deletes nothing, because records and
logs may belong to other DAGs.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from airflow.sdk import conf, task
from airflow.sdk.exceptions import AirflowSkipException

from headrace.errors import HeadraceError, TransientError
from headrace.models.window import rfc3339
from headrace.orchestration.connections import METADATA_CONN_ID, metadata_url
from headrace.orchestration.pools import HEAL_POOL
from headrace.orchestration.stage_tasks import stage_args

__all__ = ["cleanup"]

_log = structlog.get_logger(__name__)

_SKIPPED = (
    f"nothing is deleted, because the Airflow Connection {METADATA_CONN_ID} is missing. To have "
    "the records and logs of all DAGs deleted after 30 days, create it with type postgres or "
    "mysql, and with host, port, login, password and schema of Airflow's own database"
)

#: Age at which records and logs are deleted.
KEPT = timedelta(days=30)
#: Number of records that one transaction deletes.
_BATCH = 10_000
_FOUND = re.compile(r"^Found (\d+) rows meeting deletion criteria", re.MULTILINE)
#: A folder that changed less than this ago may belong to a task that is starting.
_NEW_FOLDER = timedelta(hours=1)
#: Variables of Airflow's task processes that must not reach a command.
_TASK_ONLY = (
    "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
    "__AIRFLOW_SUPERVISOR_FD",
    "_AIRFLOW_PROCESS_CONTEXT",
    "_AIRFLOW_FORK_EXEC",
)


@task(**stage_args("cleanup"), pool=HEAL_POOL)
def cleanup() -> dict[str, int]:
    """Delete records and logs of Airflow that are older than 30 days.

    Live windows alone create about six thousand task instances a day. The records are
    deleted by `airflow db clean`. It needs the address of Airflow's database in the
    Connection `airflow_metadata`. Without it the task is skipped, and nothing is deleted.

    The clean-up concerns all DAGs of this Airflow.
    """
    # Read the Connection first: an operator who creates it agrees to the deletion.
    url = metadata_url()
    if url is None:
        raise AirflowSkipException(_SKIPPED)
    before = datetime.now(UTC) - KEPT
    # Delete logs first, because that works even if the database is unavailable.
    files = delete_old_logs(Path(conf.get("logging", "base_log_folder")), before)
    records = _clean_database(before, url)
    _log.info("deleted old records and logs", records=records, log_files=files)
    return {"records": records, "log_files": files}


def _clean_database(before: datetime, url: str) -> int:
    command = [
        *(sys.executable, "-m", "airflow", "db", "clean"),
        *("--clean-before-timestamp", rfc3339(before)),
        *("--batch-size", str(_BATCH)),
        *("--skip-archive", "--yes", "--error-on-cleanup-failure"),
    ]
    environment = {name: value for name, value in os.environ.items() if name not in _TASK_ONLY}
    environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    done = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise _failure(done)
    return sum(int(number) for number in _FOUND.findall(done.stdout))


def _failure(done: subprocess.CompletedProcess[str]) -> HeadraceError:
    # The last lines contain the reason; the lines before are the traceback.
    reason = done.stderr.strip()[-2000:] or done.stdout.strip()[-2000:]
    return TransientError(f"`airflow db clean` ended with {done.returncode}: {reason}")


def delete_old_logs(folder: Path, before: datetime) -> int:
    """Delete log files that were last written before some time, and empty folders.

    Other processes write and delete in the folder at the same time. A missing file counts as
    deleted, and a folder that is no longer empty stays. Symbolic links are not followed.

    Parameters
    ----------
    folder
        Airflow's folder of logs. Files whose name does not contain ``.log`` stay.
    before
        Files that were written later stay.

    Returns
    -------
    int
        Number of deleted files.
    """
    deleted = 0
    new = (datetime.now(UTC) - _NEW_FOLDER).timestamp()
    # Read the times of folders before the first deletion, which changes them.
    found = [
        (Path(root), _changed(Path(root)), folders, files)
        for root, folders, files in os.walk(folder, followlinks=False)
    ]
    for path, changed, folders, files in reversed(found):
        links = [name for name in folders if (path / name).is_symlink()]
        for name in (*files, *links):
            if _is_log(path / name) and _changed(path / name) < before.timestamp():
                (path / name).unlink(missing_ok=True)
                deleted += 1
        if path != folder and changed < new:
            _remove_if_empty(path)
    return deleted


def _is_log(path: Path) -> bool:
    return ".log" in path.name or path.is_symlink()


def _changed(path: Path) -> float:
    """Return the time of the last change, or now if the file is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return datetime.now(UTC).timestamp()


def _remove_if_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError as exc:
        # The folder is not empty or already gone; both are fine.
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
