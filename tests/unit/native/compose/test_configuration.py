"""Every server has the same configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values

from headrace.settings import MqttLogin, Settings
from native import programs
from native.servers import LOOPBACK, Server
from tests.support.compose import AIRFLOW, Compose
from tests.support.installation import PROJECT


def test_shared_configuration_reaches_the_servers(compose: Compose) -> None:
    files = {path: {name} for name in compose.services for path in compose.env_files(name)}
    for name in AIRFLOW:
        files[compose.env_files(name)[0]] |= {name}
    assert files.pop("native/config/airflow.env") == AIRFLOW
    assert files == {
        "native/config/influxdb.env": {"influxdb"},
        "native/config/kafka.env": {"kafka"},
    }
    for name in compose.services:
        for source, _ in compose.mounts(name).values():
            # Nothing of the checkout is mounted, which other users may be unable to read.
            assert source in compose.volumes, source
    shared = {path.name for path in (PROJECT / "native/config").iterdir()}
    assert shared == {"airflow.env", "influxdb.env", "kafka.env", "mosquitto.conf", "pools.json"}


def test_kafka_has_the_same_properties(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    """The image makes the property a.b of each KAFKA_A_B but some of the JVM's."""
    lines = (native_servers["kafka"].folder / "server.properties").read_text().splitlines()
    native = dict(line.split("=", 1) for line in lines)
    options = {"KAFKA_HEAP_OPTS", "KAFKA_LOG4J_ROOT_LOGLEVEL", "KAFKA_LOG4J_LOGGERS"}
    environment = compose.environment("kafka")
    properties = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name not in options
    }
    addresses = {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
    assert set(properties) == set(native)
    for name in properties.keys() - addresses:
        assert properties[name] == native[name], name
    assert set(environment["KAFKA_HEAP_OPTS"].split()) == {
        option for option in native_servers["kafka"].command if option.startswith(("-Xms", "-Xmx"))
    }
    assert properties["log.dirs"] in compose.mounts("kafka")


def test_kafka_has_the_same_logging(compose: Compose) -> None:
    environment = compose.environment("kafka")
    loggers = yaml.safe_load((programs.HERE / "kafka" / "log4j2.yaml").read_text())
    loggers = loggers["Configuration"]["Loggers"]
    assert environment["KAFKA_LOG4J_ROOT_LOGLEVEL"] == loggers["Root"]["level"]
    own = dict(item.split("=") for item in environment["KAFKA_LOG4J_LOGGERS"].split(","))
    assert own == {logger["name"]: logger["level"] for logger in loggers["Logger"]}


@pytest.mark.parametrize("port", ["9092", "20002"])
def test_kafka_is_reached_at_the_addresses_that_it_advertises(port: str) -> None:
    compose = Compose({"HEADRACE_KAFKA_PORT": port})
    environment = compose.environment("kafka")
    advertised = dict(
        item.split("://") for item in environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    listeners = dict(item.split("://") for item in environment["KAFKA_LISTENERS"].split(","))
    inside = compose.environment("bridge")["HEADRACE_KAFKA_BOOTSTRAP"]
    assert advertised == {"PLAINTEXT": inside, "HOST": f"{LOOPBACK}:{port}"}
    assert listeners["PLAINTEXT"] == f":{inside.rpartition(':')[2]}"
    assert compose.services["kafka"]["ports"] == [f"{advertised['HOST']}{listeners['HOST']}"]
    # Nobody else connects to the controller.
    assert listeners["CONTROLLER"].startswith(f"{LOOPBACK}:")
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@{listeners['CONTROLLER']}"
    protocols = environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    assert {item.partition(":")[0] for item in protocols.split(",")} == set(listeners)


def test_influxdb_has_the_same_settings(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    environment = compose.environment("influxdb")
    native = native_servers["influxdb"].environment
    assert set(environment) == set(native)
    addresses = {"INFLUXD_HTTP_BIND_ADDRESS"} | {name for name in native if "_PATH" in name}
    for name in environment.keys() - addresses:
        assert environment[name] == native[name], name
    folders = {str(Path(value).parent) for name, value in environment.items() if "_PATH" in name}
    assert folders == {"/var/lib/influxdb2"} <= set(compose.mounts("influxdb"))


@pytest.mark.parametrize("login", list(MqttLogin))
def test_mosquitto_has_the_same_lines(
    login: MqttLogin, env_file: Path, request: pytest.FixtureRequest
) -> None:
    env_file.write_text(f"{env_file.read_text()}\nHEADRACE_MQTT_LOGIN={login}\n")
    compose: Compose = request.getfixturevalue("compose")
    native_servers: Mapping[str, Server] = request.getfixturevalue("native_servers")
    configs = {
        config["target"]: compose.configs[config["source"]]["content"].splitlines()
        for config in compose.services["mosquitto"]["configs"]
    }
    own = configs["/mosquitto/config/mosquitto.conf"]
    mounts = compose.mounts("mosquitto")
    logins = next(target for target, (source, _) in mounts.items() if source == "mqtt-logins")
    for line in own:
        if line.startswith(("password_file", "acl_file")):
            assert str(Path(line.split(" ")[1]).parent) == logins
    included = own[0].removeprefix("include_dir ")
    (shared,) = [text for target, text in configs.items() if target.startswith(f"{included}/")]
    source = (PROJECT / "native/config/mosquitto.conf").read_text()
    assert shared == [line for line in source.splitlines() if line and not line.startswith("#")]
    native = (native_servers["mosquitto"].folder / "mosquitto.conf").read_text()
    lines = native.removeprefix(source)
    assert [line.partition(" ")[0] for line in own[1:]] == [
        line.partition(" ")[0] for line in lines.split("\n") if line
    ]
    anonymous = f"allow_anonymous {str(login is MqttLogin.ANONYMOUS).lower()}"
    assert anonymous in own
    assert anonymous in lines.split("\n")
    values = dict(line.split(" ", 1) for line in own)
    assert values["persistence_location"].rstrip("/") in mounts
    assert values["listener"] == str(Settings.model_fields["mqtt_port"].default)


def test_mosquitto_logins_follow_the_setting(compose: Compose) -> None:
    assert {f"mosquitto-{login}" for login in MqttLogin} <= set(compose.configs)
    config = compose.raw["services"]["mosquitto"]["configs"][0]
    default = Settings.model_fields["mqtt_login"].default
    assert config["source"] == f"mosquitto-${{HEADRACE_MQTT_LOGIN:-{default}}}"


def test_changed_configuration_recreates_the_broker(compose: Compose) -> None:
    """Compose compares labels, but not the content of configs."""
    label = compose.services["mosquitto"]["labels"]["headrace.configuration"]
    assert label == compose.configs["mosquitto-shared"]["content"]


def test_mosquitto_owns_its_login_files(compose: Compose) -> None:
    """The files belong to the user of the containers that write them."""
    dockerfile = (PROJECT / "Dockerfile").read_text()
    folder = re.search(
        r"--owner (\d+) --group (\d+) --mode 2750 /var/lib/headrace/mqtt", dockerfile
    )
    assert folder is not None
    assert f"mosquitto:x:{folder[1]}:{folder[2]}:" in compose.configs["mosquitto-user"]["content"]
    targets = {
        config["source"]: config["target"] for config in compose.services["mosquitto"]["configs"]
    }
    assert targets["mosquitto-user"] == "/etc/passwd"


def test_the_executor_can_be_changed(compose: Compose) -> None:
    shared = dotenv_values(PROJECT / "native/config/airflow.env")
    changed = Compose({"AIRFLOW__CORE__EXECUTOR": "my.Executor"})
    for name in AIRFLOW:
        own = compose.environment(name)["AIRFLOW__CORE__EXECUTOR"]
        assert own == shared["AIRFLOW__CORE__EXECUTOR"]
        assert changed.environment(name)["AIRFLOW__CORE__EXECUTOR"] == "my.Executor"


def test_airflow_s_processes_share_their_logs(compose: Compose) -> None:
    for name in AIRFLOW:
        assert compose.mounts(name)["/opt/airflow/logs"] == ("airflow-logs", False), name


def test_images_contain_only_listed_files() -> None:
    """Above all no .env and no data: the build context leaves out everything else."""
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", (PROJECT / "Dockerfile").read_text())
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    }
    assert copied == kept
