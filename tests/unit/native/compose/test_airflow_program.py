"""docker/airflow.py configures ``airflow`` in the image from the settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from native.stack import Stack
from tests.support.compose import Compose
from tests.support.installation import PROJECT

#: A fake Airflow program, which records its arguments and environment.
AIRFLOW = """\
#!{python}
import json, os, sys
with open(os.environ["SEEN"], "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
"""
PASSWORD = "p@s/s#w?%d:x\"'$HOME"


def run(
    folder: Path, environment: Mapping[str, str]
) -> tuple[subprocess.CompletedProcess[str], list[str], dict[str, str]]:
    """Run the program as in a container; return Airflow's arguments and environment."""
    for name, text in (
        ("own/airflow", (PROJECT / "docker/airflow.py").read_text().split("\n", 1)[1]),
        ("real/airflow", AIRFLOW.split("\n", 1)[1]),
    ):
        path = folder / name
        path.parent.mkdir()
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
    seen = folder / "seen.json"
    done = subprocess.run(
        ["airflow", "scheduler", "--skip-serve-logs"],
        env={
            "PATH": f"{folder / 'own'}{os.pathsep}{folder / 'real'}",
            "SEEN": str(seen),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        # There is no .env in the image.
        cwd=folder / "own",
        timeout=60,
    )
    arguments, given = json.loads(seen.read_text()) if seen.exists() else ([], {})
    return done, arguments, given


def test_airflow_has_the_same_environment_as_with_make_up(
    compose: Compose, stack: Stack, tmp_path: Path
) -> None:
    environment = compose.environment("airflow-scheduler")
    done, arguments, given = run(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert arguments == ["scheduler", "--skip-serve-logs"]
    native = {k: v for k, v in stack.airflow_environment.items() if k.startswith("AIRFLOW__")}
    different = {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        # The image sets them.
        "AIRFLOW__API__HOST",
        "AIRFLOW__API__PORT",
        "AIRFLOW__CORE__DAGS_FOLDER",
        "AIRFLOW__CORE__PLUGINS_FOLDER",
    }
    assert {k: given.get(k) for k in native.keys() - different} == {
        k: v for k, v in native.items() if k not in different
    }
    in_image = (PROJECT / "Dockerfile").read_text()
    assert all(f"{name}=" in in_image or name in given for name in different)
    execution = given["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert execution == "http://airflow-api-server:8080/execution/"
    kafka = json.loads(given["AIRFLOW_CONN_KAFKA_DEFAULT"])
    assert kafka["extra"]["bootstrap.servers"] == "kafka:19092"
    influx = json.loads(given["AIRFLOW_CONN_INFLUXDB_DEFAULT"])
    assert (influx["host"], influx["port"]) == ("influxdb", 8086)
    assert influx["extra"]["token_file"] == "/var/lib/headrace/tokens/airflow.token"
    smtp = json.loads(given["AIRFLOW_CONN_SMTP_DEFAULT"])
    assert (smtp["host"], smtp["port"]) == ("mailbox", 1025)
    assert not (tmp_path / "passwords.json").exists()


def test_any_password_reaches_the_database(compose: Compose, tmp_path: Path) -> None:
    environment = compose.environment("airflow-init")
    _, _, given = run(tmp_path, {**environment, "HEADRACE_POSTGRES_PASSWORD": PASSWORD})
    url = make_url(given["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    own = json.loads(given["AIRFLOW_CONN_AIRFLOW_METADATA"])
    assert url.password == own["password"] == PASSWORD
    assert (url.host, url.port) == (own["host"], own["port"]) == ("postgres", 5433)


def test_the_api_server_checks_the_login(compose: Compose, tmp_path: Path) -> None:
    environment = compose.environment("airflow-api-server")
    run(tmp_path, environment)
    path = tmp_path / "passwords.json"
    assert json.loads(path.read_text()) == {"admin": environment["HEADRACE_AIRFLOW_PASSWORD"]}
    assert path.stat().st_mode & 0o777 == 0o600


def test_tasks_reach_an_api_below_a_path(compose: Compose, tmp_path: Path) -> None:
    environment = compose.environment("airflow-scheduler")
    url = {"HEADRACE_AIRFLOW_URL": "https://fleet.example.com/airflow"}
    _, _, given = run(tmp_path, {**environment, **url})
    assert given["AIRFLOW__API__BASE_URL"] == url["HEADRACE_AIRFLOW_URL"]
    execution = given["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert execution == "http://airflow-api-server:8080/airflow/execution/"


def test_your_own_connection_has_priority(compose: Compose, tmp_path: Path) -> None:
    own = {"AIRFLOW_CONN_SMTP_DEFAULT": "smtp://relay.example.com:25"}
    _, _, given = run(tmp_path, {**compose.environment("airflow-scheduler"), **own})
    assert given.items() >= own.items()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"HEADRACE_AIRFLOW_JWT_SECRET": ""}, "`make env` writes all secrets"),
        ({"HEADRACE_INFLUX_HOST": "localhost"}, "HEADRACE_INFLUX_HOST: inside a container"),
    ],
)
def test_a_wrong_setting_is_named(
    wrong: dict[str, str], sentence: str, compose: Compose, tmp_path: Path
) -> None:
    done, arguments, _ = run(tmp_path, {**compose.environment("airflow-scheduler"), **wrong})
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: ")
    assert sentence in done.stderr
    assert not arguments
