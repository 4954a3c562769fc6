"""`make up` works in odd folders, beside other servers, and in any shell environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dotenv import dotenv_values

from headrace.errors import ConfigurationError
from headrace.settings import load_settings
from native import servers, up
from native.circumstances import prepare_environment
from native.dotenv import write_env
from native.postgres import postgres
from native.programs import Program
from native.servers import LOOPBACK, Server
from native.stack import Programs, load_stack
from native.supervision import Supervisor
from tests.support.installation import PROJECT

NOTHING = Programs(*[Program(Path("program"))] * 5)


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "run_step", lambda *_, **__: None)
    monkeypatch.setattr(servers, "service_user", lambda: None)


def env_with(folder: Path, **changes: str) -> Path:
    path = folder / "env"
    write_env(path)
    lines = [f"HEADRACE_{name}={value}" for name, value in changes.items()]
    state = f"HEADRACE_STATE_DIR='{folder / 'state'}'"
    path.write_text("\n".join((path.read_text(), state, *lines, "")))
    return path


def data_of(folder: Path, version: str) -> Path:
    data = folder / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(f"{version}\n")
    return data


def test_environment_variables_of_other_servers_are_ignored() -> None:
    umask = os.umask(0o077)
    try:
        environment = {
            "AIRFLOW_CONFIG": "/etc/airflow.cfg",
            "AIRFLOW_HOME": "/srv/airflow",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "INFLUXD_BOLT_PATH": "/srv/influx",
            "PGPORT": "1",
            "HEADRACE_MQTT_PORT": "1883",
            "no_proxy": "internal.example.com",
        }
        prepare_environment(environment)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
    direct = "127.0.0.1,localhost,::1"
    assert environment == {
        "HEADRACE_MQTT_PORT": "1883",
        "no_proxy": f"internal.example.com,{direct}",
        "NO_PROXY": direct,
    }


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a b (x) \u00e9;"
    folder.mkdir()
    return folder


@pytest.fixture
def supervisor(odd_folder: Path) -> Iterator[Supervisor]:
    (odd_folder / "log").mkdir()
    supervisor = Supervisor(odd_folder)
    yield supervisor
    supervisor.shut_down()


def test_processes_run_in_a_folder_with_an_odd_name(
    supervisor: Supervisor, odd_folder: Path
) -> None:
    script = 'pwd > where; echo "$PLACE" >> where; exec sleep 600'
    server = Server("one", ("/bin/sh", "-c", script), odd_folder)
    supervisor.configure([replace(server, environment={"PLACE": str(odd_folder)})])
    supervisor.start("one")
    assert (odd_folder / "where").read_text().splitlines() == [str(odd_folder)] * 2


def test_a_folder_unusable_for_supervisor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_STATE_DIR"):
        Supervisor(tmp_path / "50%").configure([])


def test_env_quotes_a_folder_with_an_odd_name(
    odd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    write_env(odd_folder / "env")
    assert dotenv_values(odd_folder / "env")["HEADRACE_STATE_DIR"] == str(odd_folder / ".state")
    quoted = odd_folder / "it's"
    quoted.mkdir()
    with pytest.raises(SystemExit, match="choose another folder"):
        write_env(quoted / "env")


def test_env_is_written_by_any_python_without_an_installation(tmp_path: Path) -> None:
    """Users of Docker need no virtual environment."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); from native import dotenv; dotenv.main()"
    isolated = [sys.executable, "-I", "-S", "-c", script, str(PROJECT)]
    for said in ("wrote .env", ".env exists already"):
        done = subprocess.run(isolated, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(said)
    written = dotenv_values(tmp_path / ".env")
    assert written["HEADRACE_KAFKA_PORT"] == "9092"
    assert load_settings(tmp_path / ".env").kafka_bootstrap == f"{LOOPBACK}:9092"
    # What an earlier version wrote starts nothing with Docker.
    (tmp_path / ".env").write_text("HEADRACE_FLEET_SIZE=3\n")
    done = subprocess.run(isolated, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"without: COMPOSE_PROFILES={written['COMPOSE_PROFILES']}\n" in done.stdout


def test_java_reads_the_folder_s_name(odd_folder: Path) -> None:
    servers.kafka(Program(Path("jars")), odd_folder, port=1, controller_port=2)
    content = (odd_folder / "server.properties").read_bytes()
    content.decode("ascii")
    assert b"a b (x) \\u00e9;/data" in content


def test_no_socket_path_is_too_long(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    data_of(folder, "15")
    server = postgres(
        Program(Path("/usr/lib/postgresql/15/bin")), folder / "postgres", port=1, password="x"
    )
    assert "unix_socket_directories=" in server.command
    assert len(str(Supervisor(folder)._socket)) <= 107


def test_a_port_configured_twice_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_stack(env_with(tmp_path, INFLUX_PORT="1883"))
    monkeypatch.setattr(up, "port_is_free", lambda _: True)
    with pytest.raises(ConfigurationError, match=r"MQTT_PORT and HEADRACE_INFLUX_PORT"):
        up._check_ports(found, {"mosquitto", "influxdb"})


def test_data_of_another_postgresql_version_are_refused(tmp_path: Path) -> None:
    installed = tmp_path / "lib"
    data_of(tmp_path, "15")
    newer = Program(installed / "17" / "bin")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 15.* 17 .*postgresql-15"):
        postgres(newer, tmp_path / "postgres", port=1, password="x")
    older = installed / "15" / "bin"
    older.mkdir(parents=True)
    (older / "postgres").touch()
    server = postgres(newer, tmp_path / "postgres", port=1, password="x")
    assert server.command[0] == str(older / "postgres")


def test_the_lock_of_a_killed_postgresql_is_removed(tmp_path: Path) -> None:
    data = data_of(tmp_path, "15")
    lock = data / "postmaster.pid"
    program = Program(Path("/usr/lib/postgresql/15/bin"))
    # Another process has its process id now.
    lock.write_text(f"{os.getpid()}\n{data}\n")
    postgres(program, tmp_path / "postgres", port=1, password="x")
    assert not lock.exists()
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=data, stdin=-1) as running:
        lock.write_text(f"{running.pid}\n{data}\n")
        postgres(program, tmp_path / "postgres", port=1, password="x")
        assert lock.exists()
        running.communicate(b"\n")
