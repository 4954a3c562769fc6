"""Every server has the same configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import MqttLogin, Settings
from native.servers import LOOPBACK, Server
from native.stack import Stack
from tests.support.compose import AIRFLOW, ONE_SHOTS, Compose
from tests.support.installation import PROJECT

#: What Airflow has a different value for in a container: addresses and folders.
DIFFERENT_IN_AIRFLOW = {
    "AIRFLOW_HOME",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__API__HOST",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
}
#: The same within Airflow's Connections.
DIFFERENT_IN_CONNECTIONS = {"bootstrap.servers", "host", "port", "token_file"}


def test_shared_configuration_is_mounted_read_only(compose: Compose) -> None:
    mounted: dict[str, set[str]] = {}
    for name in compose.services:
        for source, read_only in compose.mounts(name).values():
            if source.startswith("."):
                assert read_only, f"{source} in {name}"
                assert (PROJECT / source).is_file(), source
                mounted.setdefault(source.removeprefix("./"), set()).add(name)
            else:
                assert source in compose.volumes, source
    for name in AIRFLOW:
        (env_file,) = compose.services[name]["env_file"]
        mounted.setdefault(env_file, set()).add(name)
    assert mounted == {
        "native/config/airflow.env": AIRFLOW,
        "native/config/influxdb.yaml": {"influxdb"},
        "native/config/kafka.properties": {"kafka"},
        "native/config/mosquitto.conf": {"mosquitto"},
        "native/config/pools.json": {"airflow-init"},
        "native/kafka/log4j2.yaml": {"kafka"},
    }
    shared = {f"native/config/{path.name}" for path in (PROJECT / "native/config").iterdir()}
    assert shared <= set(mounted)


def test_kafka_has_the_same_properties(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    assert "/mnt/shared/config/server.properties" in compose.mounts("kafka")
    properties = (native_servers["kafka"].folder / "server.properties").read_text()
    shared = (PROJECT / "native/config/kafka.properties").read_text()
    own = re.findall(r"(?m)^([a-z.]+)=", properties.removeprefix(shared))
    environment = compose.environment("kafka")
    # The image makes a property of every KAFKA_* variable but some of the JVM's.
    assert {name for name in environment if name.startswith("KAFKA_")} == {
        f"KAFKA_{name.upper().replace('.', '_')}" for name in own
    } | {"KAFKA_HEAP_OPTS"}
    command = native_servers["kafka"].command
    assert set(environment["KAFKA_HEAP_OPTS"].split()) == {
        option for option in command if option.startswith(("-Xms", "-Xmx"))
    }
    assert environment["KAFKA_LOG_DIRS"] in compose.mounts("kafka")


def test_kafka_is_reached_at_the_address_that_it_advertises(compose: Compose) -> None:
    environment = compose.environment("kafka")
    advertised = dict(
        item.split("://") for item in environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    listeners = dict(item.split("://") for item in environment["KAFKA_LISTENERS"].split(","))
    inside = compose.environment("bridge")["HEADRACE_KAFKA_BOOTSTRAP"]
    assert advertised["PLAINTEXT"] == inside
    assert listeners["PLAINTEXT"] == f":{inside.rpartition(':')[2]}"
    assert compose.services["kafka"]["ports"] == [f"{advertised['HOST']}{listeners['HOST']}"]
    # The controller is nobody's business.
    assert listeners["CONTROLLER"].startswith(f"{LOOPBACK}:")
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@{listeners['CONTROLLER']}"
    shared = (PROJECT / "native/config/kafka.properties").read_text()
    protocols = re.search(r"(?m)^listener\.security\.protocol\.map=(.*)$", shared)
    assert protocols is not None
    assert {item.partition(":")[0] for item in protocols[1].split(",")} == set(listeners)


def test_influxdb_has_the_same_settings(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    environment = compose.environment("influxdb")
    assert set(environment) == set(native_servers["influxdb"].environment)
    mounts = compose.mounts("influxdb")
    assert mounts[environment["INFLUXD_CONFIG_PATH"]][0] == "./native/config/influxdb.yaml"
    folders = {str(Path(value).parent) for name, value in environment.items() if "_PATH" in name}
    assert folders == {"/etc/headrace", "/var/lib/influxdb2"}
    assert mounts["/var/lib/influxdb2"] == ("influxdb-data", False)


@pytest.mark.parametrize("login", list(MqttLogin))
def test_mosquitto_has_the_same_lines(
    login: MqttLogin, env_file: Path, request: pytest.FixtureRequest
) -> None:
    env_file.write_text(f"{env_file.read_text()}\nHEADRACE_MQTT_LOGIN={login}\n")
    compose: Compose = request.getfixturevalue("compose")
    native_servers: Mapping[str, Server] = request.getfixturevalue("native_servers")
    (config,) = compose.services["mosquitto"]["configs"]
    assert config["target"] == "/mosquitto/config/mosquitto.conf"
    own = compose.configs[config["source"]]["content"].splitlines()
    mounts = compose.mounts("mosquitto")
    (shared,) = [target for target, (source, _) in mounts.items() if source.startswith(".")]
    logins = next(target for target, (source, _) in mounts.items() if source == "mqtt-logins")
    for line in own:
        if line.startswith(("password_file", "acl_file")):
            assert str(Path(line.split(" ")[1]).parent) == logins
    assert own[0] == f"include_dir {Path(shared).parent}"
    assert shared.endswith(".conf"), "mosquitto reads nothing else in that folder"
    native = (native_servers["mosquitto"].folder / "mosquitto.conf").read_text()
    lines = native.removeprefix((PROJECT / "native/config/mosquitto.conf").read_text())
    assert [line.partition(" ")[0] for line in own[1:]] == [
        line.partition(" ")[0] for line in lines.split("\n") if line
    ]
    anonymous = f"allow_anonymous {str(login is MqttLogin.ANONYMOUS).lower()}"
    assert anonymous in own
    assert anonymous in lines.split("\n")
    values = dict(line.split(" ", 1) for line in own)
    assert values["persistence_location"].rstrip("/") in mounts
    assert values["listener"] == compose.environment("bridge")["HEADRACE_MQTT_PORT"]


def test_mosquitto_logins_follow_the_setting(compose: Compose) -> None:
    made = {name.removeprefix("mosquitto-") for name in compose.configs}
    assert made == set(MqttLogin)
    (config,) = compose.raw["services"]["mosquitto"]["configs"]
    default = Settings.model_fields["mqtt_login"].default
    assert config["source"] == f"mosquitto-${{HEADRACE_MQTT_LOGIN:-{default}}}"


def test_airflow_has_the_same_environment(compose: Compose, stack: Stack) -> None:
    native = {k: v for k, v in stack.airflow_environment.items() if k.startswith("AIRFLOW")}
    for service in AIRFLOW:
        environment = compose.environment(service)
        given = {name: value for name, value in environment.items() if name.startswith("AIRFLOW")}
        assert set(given) == set(native), service
        for name, value in given.items():
            if name.startswith("AIRFLOW_CONN_"):
                assert _flat(value) == _flat(native[name]), name
            elif name not in DIFFERENT_IN_AIRFLOW:
                assert value == native[name], name


def test_airflow_reaches_the_stack(compose: Compose) -> None:
    environment = compose.environment("airflow-scheduler")
    kafka = json.loads(environment["AIRFLOW_CONN_KAFKA_DEFAULT"])
    influx = json.loads(environment["AIRFLOW_CONN_INFLUXDB_DEFAULT"])
    smtp = json.loads(environment["AIRFLOW_CONN_SMTP_DEFAULT"])
    postgres = compose.environment("postgres")
    database = f"{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}@postgres:5432/airflow"
    assert kafka["extra"]["bootstrap.servers"] == environment["HEADRACE_KAFKA_BOOTSTRAP"]
    assert influx["schema"] == "http"
    assert influx["host"] == environment["HEADRACE_INFLUX_HOST"]
    assert str(influx["port"]) == environment["HEADRACE_INFLUX_PORT"]
    assert f"{smtp['host']}:{smtp['port']}" == "mailbox:1025"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith(f"//{database}")
    own = json.loads(environment["AIRFLOW_CONN_AIRFLOW_METADATA"])
    named = f"{own['login']}:{own['password']}@{own['host']}:{own['port']}/{own['schema']}"
    assert named == database
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == (
        f"http://airflow-api-server:{environment['AIRFLOW__API__PORT']}/execution/"
    )
    passwords = Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    for service in ("airflow-init", "airflow-api-server"):
        assert compose.mounts(service)[str(passwords.parent)] == ("airflow-auth", False)
    logs = f"{environment['AIRFLOW_HOME']}/logs"
    for service in AIRFLOW - ONE_SHOTS:
        assert compose.mounts(service)[logs] == ("airflow-logs", False), service


def test_images_contain_the_files_that_commands_use(compose: Compose) -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "everything is left out but what is named"
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    dockerfile = (PROJECT / "Dockerfile").read_text()
    copied = {
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", dockerfile)
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    }
    assert copied == kept
    assert all((PROJECT / source).exists() for source in kept)
    environment = compose.environment("airflow-dag-processor")
    assert environment["AIRFLOW__CORE__DAGS_FOLDER"] == "/opt/headrace/dags"
    assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] == "/opt/headrace/plugins"
    assert {"dags", "plugins", "include"} <= kept


def _flat(connection: str) -> dict[str, Any]:
    """A Connection without what is an address or a folder."""
    content = json.loads(connection)
    extra = content.pop("extra", {})
    flat = {**content, **extra}
    return {
        name: value for name, value in flat.items() if name not in DIFFERENT_IN_CONNECTIONS
    } | dict.fromkeys(DIFFERENT_IN_CONNECTIONS & set(flat))
