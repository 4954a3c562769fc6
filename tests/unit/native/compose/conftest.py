"""``docker-compose.yaml`` and ``make up`` define the same stack.

``tools.compose_lint`` lets Compose itself check the file, and ``tests/compose`` runs it. Here is
what a running stack does not show: that settings, secrets, versions and configuration are complete
and equal. Nothing is started.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from headrace.settings import SECRETS, Settings
from native import servers
from native.dotenv import write_env
from native.programs import Program
from native.servers import Server
from native.stack import Programs, Stack, load_stack
from tests.support.compose import Compose


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*Settings.model_fields, *(f"{secret}_file" for secret in SECRETS)]:
        monkeypatch.delenv(f"HEADRACE_{name.upper()}", raising=False)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """The file of ``make env``, except for the data folder."""
    path = tmp_path / ".env"
    write_env(path)
    text = re.sub(r"(?m)^(HEADRACE_STATE_DIR=).*$", rf"\g<1>{tmp_path / 'state'}", path.read_text())
    path.write_text(text)
    return path


@pytest.fixture
def compose(env_file: Path) -> Compose:
    return Compose({name: value or "" for name, value in dotenv_values(env_file).items()})


@pytest.fixture
def stack(env_file: Path) -> Stack:
    return load_stack(env_file)


@pytest.fixture
def native_servers(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> dict[str, Server]:
    """All processes of ``make up``, prepared without running anything."""
    monkeypatch.setattr(servers, "run_step", lambda *_, **__: None)
    monkeypatch.setattr(servers, "service_user", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something is run"))
    # This folder exists, so it need not be created.
    database = stack.folder / "postgres" / "data" / "PG_VERSION"
    database.parent.mkdir(parents=True)
    database.touch()
    program = Program(Path("program"))
    found = stack.servers(Programs(*[program] * 5))
    everything = [*found, *stack.workers(), *stack.airflow(), *stack.fleet()]
    return {server.name: server for server in everything}
