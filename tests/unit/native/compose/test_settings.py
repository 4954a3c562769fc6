"""The same settings, and the same ports."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dotenv import dotenv_values

from headrace.settings import Settings
from tests.support.compose import AIRFLOW, VARIABLE, WORKERS, Compose

#: Settings that mean nothing inside a container, and why.
NOT_HANDED_ON = {
    # The image holds them where the default looks.
    "flux_dir",
    # `make up` reads it; Compose has profiles.
    "own_servers",
    # Always on loopback outside, and on every address inside.
    "airflow_host",
    # docker/outside.yaml hands these on, and opens the servers to other machines.
    "kafka_advertised",
    "server_cert_file",
    "server_key_file",
    # Only Kafka itself connects there.
    "kafka_controller_port",
}
#: Settings of the servers, and who connects to them.
CLIENTS = {
    "MQTT": {"bridge", "provision", "cli"},
    "KAFKA": {"bridge", "sink", "provision", "cli", *AIRFLOW},
    "INFLUX": {"sink", "provision", "cli", *AIRFLOW},
    "SMTP": {"cli", *AIRFLOW},
    "POSTGRES": AIRFLOW,
}
#: The least that .env has to have.
LEAST_ENV = {"HEADRACE_INSTALLED_AT": "2026-01-01T00:00:00Z"}
#: Variables of the file that are no settings of Headrace.
NO_SETTINGS = {"COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "AIRFLOW__CORE__EXECUTOR"}
#: What this file has a default of its own for: the addresses inside the network.
INSIDE = {
    "HEADRACE_MQTT_HOST": "mosquitto",
    "HEADRACE_KAFKA_BOOTSTRAP": "kafka:19092",
    "HEADRACE_INFLUX_HOST": "influxdb",
    "HEADRACE_SMTP_HOST": "mailbox",
    "HEADRACE_POSTGRES_HOST": "postgres",
}


def known_settings() -> set[str]:
    return {f"HEADRACE_{name.upper()}" for name in Settings.model_fields}


def test_every_name_is_a_setting(compose: Compose, env_file: Path) -> None:
    assert compose.variables() - NO_SETTINGS <= known_settings()
    assert set(dotenv_values(env_file)) - {"COMPOSE_PROFILES"} <= known_settings()


def test_every_setting_reaches_the_containers(compose: Compose) -> None:
    kept_out = {f"HEADRACE_{name.upper()}" for name in NOT_HANDED_ON}
    assert not kept_out - known_settings()
    used = {match[0] for match in VARIABLE.findall(compose.text)}
    for service in compose.raw["services"].values():
        used |= set(service.get("environment", {}))
    missing = known_settings() - used - kept_out
    assert not missing, "hand them on in docker-compose.yaml, or say in NOT_HANDED_ON why not"
    assert not (kept_out & used) - {"HEADRACE_AIRFLOW_HOST"}, "they are handed on after all"


def test_settings_of_a_server_go_to_its_clients_and_the_rest_to_all(compose: Compose) -> None:
    common = set(compose.raw["x-settings"])
    groups = {name: set(compose.raw[f"x-{name.lower()}"]) for name in CLIENTS}
    for name in AIRFLOW | WORKERS:
        given = set(compose.raw["services"][name]["environment"])
        assert common <= given, name
        for server, settings in groups.items():
            if name in CLIENTS[server]:
                assert settings <= given, f"{name}: {server}"
            elif name != "simulate":
                assert not settings & given, f"{name}: {server}"


@pytest.mark.parametrize("server", CLIENTS)
def test_the_bundled_server_is_used_unless_env_names_another(server: str) -> None:
    """The port in .env belongs to the host in .env; the bundled server has its default."""
    address = "KAFKA_BOOTSTRAP" if server == "KAFKA" else f"{server}_HOST"
    own = {f"HEADRACE_{address}": "own.example.com:1", f"HEADRACE_{server}_PORT": "20001"}
    bundled = {f"HEADRACE_{server}_PORT": "20001"}
    for name in CLIENTS[server]:
        inside = Compose(bundled).environment(name)
        assert inside[f"HEADRACE_{address}"] == INSIDE[f"HEADRACE_{address}"]
        outside = Compose(own).environment(name)
        assert outside[f"HEADRACE_{address}"] == "own.example.com:1"
        if server != "KAFKA":
            assert inside[f"HEADRACE_{server}_PORT"] == ""
            assert outside[f"HEADRACE_{server}_PORT"] == "20001"


def test_bundled_servers_listen_at_the_defaults_of_the_settings(compose: Compose) -> None:
    defaults = {name: str(field.default) for name, field in Settings.model_fields.items()}
    inside = {
        name: {port.rpartition(":")[2] for port in service.get("ports", [])}
        for name, service in compose.services.items()
    }
    assert inside["mosquitto"] == {defaults["mqtt_port"]}
    assert inside["influxdb"] == {defaults["influx_port"]}
    assert inside["mailbox"] == {defaults["smtp_port"], defaults["mailbox_port"]}
    assert compose.environment("postgres")["PGPORT"] == defaults["postgres_port"]


def test_simulated_devices_never_publish_to_your_own_broker() -> None:
    compose = Compose({"HEADRACE_MQTT_HOST": "own.example.com", "HEADRACE_MQTT_PORT": "8883"})
    environment = compose.environment("simulate")
    assert environment["HEADRACE_MQTT_HOST"] == "mosquitto"
    assert "HEADRACE_MQTT_PORT" not in environment


def test_defaults_are_those_of_the_settings(compose: Compose) -> None:
    for name, defaults in compose.defaults().items():
        # A port, or a certificate, that is only passed on if it is set.
        own = defaults - {"", os.devnull}
        if name in NO_SETTINGS or not own:
            continue
        field = Settings.model_fields[name.removeprefix("HEADRACE_").lower()]
        assert own == {INSIDE.get(name, str(field.default))}, name


def test_ports_can_be_changed() -> None:
    changed = {
        "HEADRACE_MQTT_PORT": "20001",
        "HEADRACE_KAFKA_PORT": "20002",
        "HEADRACE_INFLUX_PORT": "20003",
        "HEADRACE_MAILBOX_PORT": "20004",
        "HEADRACE_SMTP_PORT": "20005",
        "HEADRACE_BRIDGE_METRICS_PORT": "20006",
        "HEADRACE_SINK_METRICS_PORT": "20007",
        "HEADRACE_AIRFLOW_PORT": "20008",
    }
    compose = Compose({**LEAST_ENV, **changed})
    ports = {port for published in compose.ports().values() for _, port in published}
    assert ports == set(range(20001, 20009))
