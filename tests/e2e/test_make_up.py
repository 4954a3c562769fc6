"""`make up` works in a folder with a space, under a strict umask, beside another Airflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from native.dotenv import write_env
from tests.support.backbone import make_folder
from tests.support.installation import PROJECT
from tests.support.processes import free_port

#: Every port in the file that `make env` writes.
PORT = re.compile(r"(?m)^(HEADRACE_\w+_PORT)=\d+$")


@pytest.mark.long
def test_make_up_works_in_a_folder_with_a_space_under_a_strict_umask() -> None:
    folder = make_folder() / "my fuel"
    folder.mkdir()
    env = folder / ".env"
    write_env(env)
    text = PORT.sub(lambda match: f"{match[1]}={free_port()}", env.read_text())
    text = re.sub(r"(?m)^(HEADRACE_STATE_DIR)=.*$", rf"\1='{folder / 'state'}'", text)
    text = re.sub(r"(?m)^(HEADRACE_POSTGRES_PASSWORD)=.*$", r"\1='p@ss/w?o#r%d'", text)
    more = {"KAFKA_CONTROLLER_PORT": free_port(), "FLEET_SIZE": 0, "SMTP_HOST": "relay.invalid"}
    env.write_text(text + "".join(f"HEADRACE_{name}={value}\n" for name, value in more.items()))
    try:
        done = native(folder, "up")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Headrace is up" in done.stdout
        again = native(folder, "up")
        assert again.returncode == 0, again.stdout + again.stderr
    finally:
        stopped = native(folder, "down")
    assert "stopped" in stopped.stdout
    assert native(folder, "reset", "--yes").returncode == 0
    assert not (folder / "state").exists()


def native(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command behind a make target."""
    inherited = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    return subprocess.run(
        [sys.executable, "-m", "native", *arguments],
        cwd=folder,
        env={
            **inherited,
            "PYTHONPATH": str(PROJECT),
            "AIRFLOW_CONFIG": "/nowhere/airflow.cfg",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "http_proxy": "http://127.0.0.1:9",
        },
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )
