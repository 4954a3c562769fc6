"""The same settings, and the same ports."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values

from headrace.settings import Settings, load_settings
from native.servers import LOOPBACK
from tests.support.compose import AIRFLOW, TOOLS, VARIABLE, WORKERS, Compose

#: Settings that mean nothing inside a container, and why.
NOT_HANDED_ON = {
    # The image holds them where the default looks.
    "flux_dir",
    # The containers talk to the stack's own servers, without TLS and logins, inside the network.
    "mqtt_tls",
    "mqtt_ca_file",
    "kafka_protocol",
    "kafka_sasl_mechanism",
    "kafka_username",
    "kafka_password",
    "kafka_ca_file",
    "influx_tls",
    "influx_ca_file",
    "influx_token",
    "kafka_cert_file",
    "kafka_key_file",
    "smtp_host",
    "smtp_security",
    "smtp_username",
    "smtp_password",
    "smtp_ca_file",
    "postgres_host",
    "postgres_user",
    "postgres_database",
    "postgres_tls",
    "postgres_ca_file",
    # `make up` reads it; Compose has profiles.
    "own_servers",
    # Only the cli asks for the workers' health.
    "bridge_host",
    "sink_host",
    # Always on loopback outside, and on every address inside.
    "airflow_host",
    # Nobody outside needs these servers.
    "kafka_controller_port",
    "postgres_port",
}
#: Settings that only some services get: the rest of the stack has no use for them.
ONLY_FOR = {
    "HEADRACE_INFLUX_ADMIN_USER": {"provision"},
    "HEADRACE_INFLUX_ADMIN_PASSWORD": {"provision"},
    "HEADRACE_INFLUX_ADMIN_TOKEN": {"provision"},
    "HEADRACE_AIRFLOW_USER": {"airflow-init"},
    "HEADRACE_AIRFLOW_PASSWORD": {"airflow-init"},
    "HEADRACE_POSTGRES_PASSWORD": {"airflow-init"},
    "HEADRACE_MQTT_USERNAME": {"bridge", "provision"},
    "HEADRACE_MQTT_PASSWORD": {"bridge", "provision"},
    "HEADRACE_FLEET_SIZE": {"provision"},
}
#: Settings that are derived from others if they are not set.
DERIVED = {"HEADRACE_AIRFLOW_URL"}
#: Variables of the file that are no settings, but Compose's own.
NO_SETTINGS = {"COMPOSE_PROJECT_NAME"}


#: The least that .env has to have.
LEAST_ENV = {
    f"HEADRACE_{name}": "x"
    for name in (
        "INSTALLED_AT",
        "MQTT_PASSWORD",
        "INFLUX_ADMIN_PASSWORD",
        "INFLUX_ADMIN_TOKEN",
        "AIRFLOW_PASSWORD",
        "AIRFLOW_JWT_SECRET",
        "AIRFLOW_FERNET_KEY",
        "POSTGRES_PASSWORD",
    )
}


def known_settings() -> set[str]:
    return {f"HEADRACE_{name.upper()}" for name in Settings.model_fields}


def test_every_name_is_a_setting(compose: Compose, env_file: Path) -> None:
    assert compose.variables() - NO_SETTINGS <= known_settings()
    assert set(dotenv_values(env_file)) <= known_settings()


def test_every_setting_reaches_the_containers(compose: Compose) -> None:
    kept_out = {f"HEADRACE_{name.upper()}" for name in NOT_HANDED_ON}
    assert not kept_out - known_settings()
    # What only the cli has would not reach the stack.
    used = {match[0] for match in VARIABLE.findall(compose.text)}
    for name in set(compose.services) - TOOLS:
        used |= set(compose.raw["services"][name].get("environment", {}))
    missing = known_settings() - used - kept_out
    assert not missing, "hand them on in x-settings, or say in NOT_HANDED_ON why not"
    assert not kept_out & used, "they are handed on after all"


def test_workers_and_airflow_get_the_same_settings(compose: Compose) -> None:
    common = set(compose.raw["x-settings"])
    for name in (AIRFLOW | WORKERS) - TOOLS:
        given = set(compose.raw["services"][name]["environment"])
        own = {setting for setting, services in ONLY_FOR.items() if name in services}
        assert {item for item in given if item.startswith("HEADRACE_")} == common | own, name


@pytest.mark.parametrize("name", sorted(AIRFLOW | WORKERS))
def test_settings_are_accepted(
    name: str, compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = compose.environment(name)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = load_settings(tmp_path / "none")
    assert settings.installed_at.year > 1970


def test_defaults_are_those_of_the_settings(compose: Compose) -> None:
    for name, defaults in compose.defaults().items():
        if name in DERIVED:
            continue
        field = Settings.model_fields[name.removeprefix("HEADRACE_").lower()]
        assert defaults == {str(field.default)}, name


def test_published_ports_are_those_of_make_up() -> None:
    defaults = {
        name: field.default for name, field in Settings.model_fields.items() if "port" in name
    }
    kafka = Settings.model_fields["kafka_bootstrap"].default
    published = {
        name: {port for _, port in ports} for name, ports in Compose(LEAST_ENV).ports().items()
    }
    assert published == {
        "mosquitto": {defaults["mqtt_port"]},
        "kafka": {int(kafka.rpartition(":")[2])},
        "influxdb": {defaults["influx_port"]},
        "mailbox": {defaults["mailbox_port"], defaults["smtp_port"]},
        "bridge": {defaults["bridge_metrics_port"]},
        "sink": {defaults["sink_metrics_port"]},
        "airflow-api-server": {defaults["airflow_port"]},
    }


def test_ports_can_be_changed() -> None:
    changed = {
        "HEADRACE_MQTT_PORT": "20001",
        "HEADRACE_KAFKA_BOOTSTRAP": f"{LOOPBACK}:20002",
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
    # What is said outside has to be true outside.
    kafka = compose.environment("kafka")
    assert f"HOST://{LOOPBACK}:20002" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    airflow = compose.environment("airflow-scheduler")
    assert airflow["AIRFLOW__API__BASE_URL"] == f"http://{LOOPBACK}:20008"


def test_links_use_the_public_url() -> None:
    url = "https://airflow.example.com"
    compose = Compose({**LEAST_ENV, "HEADRACE_AIRFLOW_URL": url})
    assert compose.environment("airflow-scheduler")["AIRFLOW__API__BASE_URL"] == url


def test_nothing_is_published_beyond_loopback(compose: Compose) -> None:
    for name, ports in compose.ports().items():
        assert {address for address, _ in ports} == {LOOPBACK}, name
    assert not any("network_mode" in service for service in compose.services.values())
