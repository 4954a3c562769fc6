"""Sets up and starts PostgreSQL for Airflow's metadata."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from headrace.errors import ConfigurationError
from native.programs import Program
from native.servers import LOOPBACK, Server, hand_over, make_folder

__all__ = ["postgres"]


def postgres(program: Program, folder: Path, *, port: int, password: str) -> Server:
    """Return PostgreSQL with an empty database ``airflow`` and an owner of the same name."""
    user = make_folder(folder)
    data = folder / "data"
    program = _of_the_data(program, data)
    _remove_stale_pid(data)
    env = {**os.environ, **program.environment}
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        hand_over(folder, user)
        initdb = [
            str(program.path / "initdb"),
            f"--pgdata={data}",
            "--username=airflow",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        single = [str(program.path / "postgres"), "--single", "-D", str(data), "postgres"]
        try:
            for command, text in ((initdb, None), (single, "CREATE DATABASE airflow;\n")):
                done = subprocess.run(
                    command,
                    input=text,
                    text=True,
                    env=env,
                    cwd=folder,
                    user=user,
                    group=user,
                    capture_output=True,
                    check=False,
                )
                if done.returncode:
                    shutil.rmtree(data, ignore_errors=True)
                    msg = f"{Path(command[0]).name} failed: {done.stderr.strip()}"
                    raise ConfigurationError(msg)
        finally:
            secret.unlink()

    def ready() -> bool:
        asked = [str(program.path / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port)]
        return subprocess.run(asked, env=env, check=False).returncode == 0

    return Server(
        "postgres",
        (
            str(program.path / "postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            "-c",
            f"listen_addresses={LOOPBACK}",
            "-c",
            # No socket, because its path could be too long, and all clients use TCP.
            "unix_socket_directories=",
        ),
        folder,
        environment=program.environment,
        ready=ready,
        user=user,
        # On SIGTERM, PostgreSQL would wait until the last client disconnects.
        stop_signal="INT",
    )


def _of_the_data(program: Program, data: Path) -> Program:
    """Return the PostgreSQL of the version that wrote the data; other versions can't read it.

    Raises
    ------
    ConfigurationError
        If that version is not installed.
    """
    major = program.path.parent.name
    version = data / "PG_VERSION"
    if not major.isdigit() or not version.exists():
        return program
    written_by = version.read_text().strip()
    if written_by in ("", major):
        return program
    other = program.path.parents[1] / written_by / "bin"
    if (other / "postgres").exists():
        return Program(other, program.environment)
    msg = (
        f"the data in {data} were written by PostgreSQL {written_by}, which PostgreSQL {major} "
        f"can't read. Install postgresql-{written_by}, or run `make reset` to delete all data"
    )
    raise ConfigurationError(msg)


def _remove_stale_pid(data: Path) -> None:
    """Remove the lock of a killed PostgreSQL whose process id now belongs to another process."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
        owner = Path(f"/proc/{pid}/cwd").resolve(strict=True)
    except (OSError, ValueError, IndexError):
        # PostgreSQL removes a lock whose process is gone. An incomplete lock is being written.
        return
    if owner != data.resolve():
        lock.unlink(missing_ok=True)
