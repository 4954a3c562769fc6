"""Secrets go only where they are needed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dotenv import dotenv_values

from headrace.settings import SECRETS
from tests.support.compose import AIRFLOW, VARIABLE, WORKERS, Compose
from tests.support.installation import PROJECT

#: User and group of Airflow's image.
OWNER = "50000:0"


def test_values_of_secrets_go_only_where_they_are_needed(compose: Compose, env_file: Path) -> None:
    allowed = {
        "HEADRACE_INFLUX_ADMIN_PASSWORD": {"provision"},
        "HEADRACE_INFLUX_ADMIN_TOKEN": {"provision"},
        "HEADRACE_MQTT_PASSWORD": {"bridge", "provision"},
        "HEADRACE_AIRFLOW_PASSWORD": {"airflow-init"},
        "HEADRACE_AIRFLOW_JWT_SECRET": AIRFLOW,
        "HEADRACE_AIRFLOW_FERNET_KEY": AIRFLOW,
        "HEADRACE_POSTGRES_PASSWORD": {"postgres", *AIRFLOW},
    }
    values = dotenv_values(env_file)
    secrets = {f"HEADRACE_{name.upper()}" for name in SECRETS} & set(values)
    assert secrets == set(allowed)
    for setting, services in allowed.items():
        value = values[setting]
        assert value
        holders = {n for n, service in compose.services.items() if value in json.dumps(service)}
        assert holders == services, setting


def test_only_variables_written_by_env_are_required(compose: Compose, env_file: Path) -> None:
    demanded = {
        (name, text) for name, operator, text in VARIABLE.findall(compose.text) if operator == "?"
    }
    assert {text for _, text in demanded} == {"run `make env` first"}
    secrets = {f"HEADRACE_{name.upper()}" for name in SECRETS} & set(dotenv_values(env_file))
    assert {name for name, _ in demanded} == secrets | {"HEADRACE_INSTALLED_AT"}


def test_tokens_are_only_read_after_provisioning(compose: Compose) -> None:
    state = compose.environment("provision")["HEADRACE_STATE_DIR"]
    mounted = {
        name: mounts[state]
        for name in compose.services
        if state in (mounts := compose.mounts(name))
    }
    assert mounted.pop("provision") == ("tokens", False)
    assert set(mounted) == {"sink", "cli", *AIRFLOW} - {"airflow-init"}
    assert set(mounted.values()) == {("tokens", True)}
    connection = compose.environment("airflow-scheduler")["AIRFLOW_CONN_INFLUXDB_DEFAULT"]
    assert json.loads(connection)["extra"]["token_file"] == f"{state}/tokens/airflow.token"


def test_headrace_services_run_as_one_unprivileged_user(compose: Compose) -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text()
    workers, airflow = dockerfile.split("AS airflow\n")
    for target in (workers, airflow):
        assert re.findall(r"(?m)^USER (.*)$", target)[-1] == OWNER
        assert "/var/lib/headrace" in target
    for name, service in compose.services.items():
        assert "user" not in service, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
    for name in AIRFLOW | WORKERS:
        assert compose.services[name]["cap_drop"] == ["ALL"], name
    for name in WORKERS:
        assert compose.services[name]["read_only"] is True, name
