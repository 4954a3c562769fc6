"""Secrets go only where they are needed."""

from __future__ import annotations

import json
import os
import re

from headrace.settings import SECRETS
from tests.support.compose import AIRFLOW, WORKERS, Compose

#: User and group of Airflow's image.
OWNER = "50000:0"


#: The services that have each secret.
HOLDERS = {
    "INFLUX_ADMIN_PASSWORD": {"provision"},
    "INFLUX_ADMIN_TOKEN": {"provision"},
    "INFLUX_TOKEN": {"provision", "sink", "cli", *AIRFLOW},
    "MQTT_PASSWORD": {"provision", "bridge", "cli"},
    "KAFKA_PASSWORD": {"provision", "bridge", "sink", "cli", *AIRFLOW},
    "SMTP_PASSWORD": {"cli", *AIRFLOW},
    "AIRFLOW_PASSWORD": {"airflow-api-server"},
    "AIRFLOW_JWT_SECRET": AIRFLOW,
    "AIRFLOW_FERNET_KEY": AIRFLOW,
    "POSTGRES_PASSWORD": {"postgres", *AIRFLOW},
}


def test_values_of_secrets_go_only_where_they_are_needed() -> None:
    assert set(HOLDERS) == {name.upper() for name in SECRETS}
    values = {f"HEADRACE_{name}": f"<{name}>" for name in HOLDERS}
    compose = Compose(values)
    for name, services in HOLDERS.items():
        value = values[f"HEADRACE_{name}"]
        holders = {
            service
            for service in compose.services
            if value in compose.environment(service).values()
        }
        assert holders == services, name
        elsewhere = [
            {key: part for key, part in service.items() if key != "environment"}
            for service in compose.services.values()
        ]
        assert value not in json.dumps(elsewhere), name


def test_keys_go_only_to_services_that_connect_with_them(compose: Compose) -> None:
    for name in compose.services:
        mounted = set(compose.services[name].get("secrets", []))
        named = {
            match[1]
            for value in compose.raw["services"][name].get("environment", {}).values()
            for match in re.finditer(r"/run/secrets/([a-z-]+)", value or "")
        }
        assert mounted == named, name


def test_a_file_is_mounted_only_if_its_setting_is_set(compose: Compose) -> None:
    for name, secret in compose.secrets.items():
        setting = f"HEADRACE_{name.upper().replace('-', '_')}_FILE"
        assert secret == {"file": os.devnull}
        given = Compose({setting: "certificates/some.pem"})
        assert given.secrets[name] == {"file": "certificates/some.pem"}
        for service in AIRFLOW | WORKERS:
            if setting in compose.environment(service):
                assert compose.environment(service)[setting] == ""
                assert given.environment(service)[setting] == f"/run/secrets/{name}"


def test_each_reader_sees_its_own_token_only(compose: Compose) -> None:
    state = compose.environment("provision")["HEADRACE_STATE_DIR"]
    mounted = {
        name: {path: mount for path, mount in mounts.items() if "token" in mount[0]}
        for name in compose.services
        if (mounts := compose.mounts(name))
    }
    assert mounted.pop("provision") == {
        state: ("tokens", False),
        f"{state}-sink": ("sink-token", False),
        f"{state}-airflow": ("airflow-token", False),
    }
    assert mounted.pop("cli") == {state: ("tokens", True)}
    assert mounted.pop("sink") == {f"{state}/tokens": ("sink-token", True)}
    for name in AIRFLOW:
        assert mounted.pop(name) == {f"{state}/tokens": ("airflow-token", True)}, name
    assert not any(mounted.values())
