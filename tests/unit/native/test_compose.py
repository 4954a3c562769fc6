"""``docker-compose.yaml`` and ``make up`` are the same stack: neither changes alone.

What Compose makes of the file is asked of Compose itself by ``native.compose_lint``; here it is
compared with what ``make up`` would run, and nothing is started for it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from headrace.settings import SECRETS, MqttLogin, Settings, load_settings
from native import programs, servers
from native.airflow import init_commands
from native.dotenv import write_env
from native.programs import Program
from native.servers import LOOPBACK, Server
from native.stack import Programs, Stack, load_stack

PROJECT = Path(__file__).resolve().parents[3]

#: Services that do their work and end; `make up` runs the same commands between its starts.
ONE_SHOTS = {"provision", "airflow-init"}
#: Not part of the stack: `headrace` for a person to call.
TOOLS = {"cli"}
#: The services that run the image with Airflow.
AIRFLOW = {
    "airflow-init",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
}
#: The services that run the image without.
WORKERS = {"provision", "bridge", "sink", "simulate", "cli"}
#: User and group of Airflow's image.
OWNER = "50000:0"

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
    "smtp_host",
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
    "HEADRACE_MQTT_USERNAME": {"bridge", "provision"},
    "HEADRACE_MQTT_PASSWORD": {"bridge", "provision"},
    "HEADRACE_FLEET_SIZE": {"provision"},
}
#: Variables of the file that are no settings, but Compose's own.
NO_SETTINGS = {"COMPOSE_PROJECT_NAME"}

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
DIFFERENT_IN_CONNECTIONS = {"bootstrap.servers", "host", "token_file"}

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

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Compose:
    """``docker-compose.yaml``, with the values of some ``.env`` in it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        text = (PROJECT / "docker-compose.yaml").read_text()
        self.text = re.sub(r"(?m)^\s*#.*$", "", text)
        self._env = {"COMPOSE_PROJECT_NAME": "headrace", **env}
        content = yaml.safe_load(self.text)
        self.raw: dict[str, Any] = content
        self.services: dict[str, dict[str, Any]] = self._filled(content["services"])
        self.configs: dict[str, dict[str, Any]] = self._filled(content["configs"])
        self.volumes: set[str] = set(content["volumes"])

    def environment(self, service: str) -> dict[str, str]:
        """What a container finds in its environment."""
        own = self.services[service]
        found: dict[str, str] = {}
        for path in own.get("env_file", []):
            found.update({key: value or "" for key, value in dotenv_values(PROJECT / path).items()})
        for key, value in own.get("environment", {}).items():
            given = self._env.get(key) if value is None else value
            if given is not None:
                found[key] = given
        return found

    def mounts(self, service: str) -> dict[str, tuple[str, bool]]:
        """What is mounted where: source, and whether it is read-only, by target."""
        mounts = {}
        for mount in self.services[service].get("volumes", []):
            source, target, *options = mount.split(":")
            mounts[target] = (source, options == ["ro"])
        return mounts

    def ports(self) -> dict[str, set[tuple[str, int]]]:
        """What is published: address and port outside, by service."""
        published = {}
        for name, service in self.services.items():
            ports = [port.rpartition(":")[0] for port in service.get("ports", [])]
            if ports:
                split = [port.rpartition(":") for port in ports]
                published[name] = {(address, int(port)) for address, _, port in split}
        return published

    def defaults(self) -> dict[str, set[str]]:
        """The defaults that the file has for variables, by variable."""
        defaults: dict[str, set[str]] = {}
        for name, operator, text in _VARIABLE.findall(self.text):
            if operator == "-":
                defaults.setdefault(name, set()).add(text)
        return defaults

    def variables(self) -> set[str]:
        """All variables of the file, and all settings that it sets."""
        names = {match[0] for match in _VARIABLE.findall(self.text)}
        for service in self.raw["services"].values():
            names |= {name for name in service.get("environment", {}) if "HEADRACE" in name}
        return names

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, str):
            return _VARIABLE.sub(self._value, value).replace("$$", "$")
        return value

    def _value(self, match: re.Match[str]) -> str:
        name, operator, text = match.groups()
        found = self._env.get(name)
        if not found:
            assert operator == "-", f"{name} is not in .env, and has no default"
            return str(text)
        return found


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*Settings.model_fields, *(f"{secret}_file" for secret in SECRETS)]:
        monkeypatch.delenv(f"HEADRACE_{name.upper()}", raising=False)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """What ``make env`` writes, but for the folder of the data."""
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
    # So that it need not be made.
    database = stack.folder / "postgres" / "data" / "PG_VERSION"
    database.parent.mkdir(parents=True)
    database.touch()
    program = Program(Path("program"))
    found = stack.servers(Programs(*[program] * 5))
    everything = [*found, *stack.workers(), *stack.airflow(), *stack.fleet()]
    return {server.name: server for server in everything}


def known_settings() -> set[str]:
    return {f"HEADRACE_{name.upper()}" for name in Settings.model_fields}


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match is not None, f"{duration}: write seconds"
    return int(match[1])


# --- The same components ---------------------------------------------------------------------


def test_the_components_are_the_same(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    assert set(compose.services) - ONE_SHOTS - TOOLS == set(native_servers)


def test_only_the_fleet_and_the_tools_have_to_be_asked_for(compose: Compose) -> None:
    profiles = {
        name: service["profiles"]
        for name, service in compose.services.items()
        if "profiles" in service
    }
    assert profiles == {"simulate": ["fleet"], "cli": ["cli"]}


@pytest.mark.parametrize("name", sorted((WORKERS | AIRFLOW) - ONE_SHOTS - TOOLS))
def test_ours_run_the_same_command(
    name: str, compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    assert compose.services[name]["command"] == list(native_servers[name].command[1:])


def test_airflow_is_prepared_by_the_same_commands(compose: Compose) -> None:
    config = str(programs.HERE / "config")
    script = compose.services["airflow-init"]["command"][-1]
    commands = [
        " ".join(("airflow", *command[1:])).replace(config, "/etc/headrace")
        for command in init_commands()
    ]
    assert script.splitlines()[: len(commands)] == commands


def test_images_are_pinned(compose: Compose) -> None:
    ours = {f"headrace-{name}:local" for name in ("workers", "airflow")}
    bases = re.findall(r"(?m)^FROM (\S+)", (PROJECT / "Dockerfile").read_text())
    images = {service["image"] for service in compose.services.values()} - ours
    for image in (*images, *bases):
        _, _, tag = image.partition(":")
        assert re.search(r"\d+\.\d+", tag), f"{image} names no version"


def test_versions_are_those_of_make_up(compose: Compose) -> None:
    image = {name: service["image"] for name, service in compose.services.items()}
    pinned = dict(
        line.split("==")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    pom = (programs.HERE / "kafka" / "pom.xml").read_text()
    influxd = (programs.HERE / "influxd" / "go.mod").read_text()
    maildev = json.loads((programs.HERE / "maildev" / "package.json").read_text())
    kafka_version = re.search(r"<version>([\d.]+)</version>", pom)
    influx_version = re.search(r"influxdb/v2 v([\d.]+)", influxd)
    assert kafka_version is not None
    assert influx_version is not None
    assert image["kafka"] == f"apache/kafka:{kafka_version[1]}"
    assert image["influxdb"] == f"influxdb:{influx_version[1]}"
    assert image["mailbox"] == f"maildev/maildev:{maildev['dependencies']['maildev']}"
    assert image["postgres"].startswith(f"postgres:{programs.POSTGRES_MAJOR}.")
    assert image["mosquitto"].startswith("eclipse-mosquitto:2.")
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert f"FROM apache/airflow:{pinned['apache-airflow']}-python3.11 AS" in dockerfile


# --- The same settings -----------------------------------------------------------------------


def test_every_name_is_a_setting(compose: Compose, env_file: Path) -> None:
    assert compose.variables() - NO_SETTINGS <= known_settings()
    assert set(dotenv_values(env_file)) <= known_settings()


def test_every_setting_reaches_the_containers(compose: Compose) -> None:
    kept_out = {f"HEADRACE_{name.upper()}" for name in NOT_HANDED_ON}
    assert not kept_out - known_settings()
    # What only the cli has would not reach the stack.
    used = {match[0] for match in _VARIABLE.findall(compose.text)}
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


def test_nothing_is_published_beyond_loopback(compose: Compose) -> None:
    for name, ports in compose.ports().items():
        assert {address for address, _ in ports} == {LOOPBACK}, name
    assert not any("network_mode" in service for service in compose.services.values())


# --- Secrets ---------------------------------------------------------------------------------


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


def test_everything_that_env_writes_and_nothing_else_is_demanded(
    compose: Compose, env_file: Path
) -> None:
    demanded = {
        (name, text) for name, operator, text in _VARIABLE.findall(compose.text) if operator == "?"
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


def test_ours_run_as_one_user_without_privileges(compose: Compose) -> None:
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


# --- The same configuration ------------------------------------------------------------------


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


def test_mosquitto_lets_in_whom_the_setting_says(compose: Compose) -> None:
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
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == (
        f"http://airflow-api-server:{environment['AIRFLOW__API__PORT']}/execution/"
    )
    passwords = Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    for service in ("airflow-init", "airflow-api-server"):
        assert compose.mounts(service)[str(passwords.parent)] == ("airflow-auth", False)
    logs = f"{environment['AIRFLOW_HOME']}/logs"
    for service in AIRFLOW - ONE_SHOTS:
        assert compose.mounts(service)[logs] == ("airflow-logs", False), service


def test_images_hold_what_they_are_asked_for(compose: Compose) -> None:
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


# --- Start, stop, restart --------------------------------------------------------------------


def test_each_image_is_built_once(compose: Compose) -> None:
    for target, services in (("workers", WORKERS), ("airflow", AIRFLOW)):
        assert {compose.services[name]["image"] for name in services} == {
            f"headrace-{target}:local"
        }
        builders = [name for name in services if "build" in compose.services[name]]
        assert len(builders) == 1, "builds of one name at once are in each other's way"
        (builder,) = builders
        assert compose.services[builder]["build"] == {"context": ".", "target": target}
        for name in services:
            policy = "build" if name == builder else "never"
            assert compose.services[name]["pull_policy"] == policy, name
        # Whoever is started alone brings the builder along.
        for name in services - TOOLS - {builder}:
            assert builder in _all_before(compose, name), name


def test_everything_starts_after_what_it_needs(compose: Compose) -> None:
    healthy, done = "service_healthy", "service_completed_successfully"
    needs = {
        name: {other: need["condition"] for other, need in service.get("depends_on", {}).items()}
        for name, service in compose.services.items()
    }
    api_server = {"airflow-api-server": healthy}
    assert {name: need for name, need in needs.items() if need} == {
        "provision": {"kafka": healthy, "influxdb": healthy},
        "mosquitto": {"provision": done},
        "bridge": {"provision": done, "mosquitto": healthy, "kafka": healthy},
        "sink": {"provision": done, "kafka": healthy, "influxdb": healthy},
        "simulate": {"bridge": healthy},
        "airflow-init": {"postgres": healthy},
        "airflow-api-server": {"airflow-init": done},
        "airflow-scheduler": {**api_server, "provision": done},
        "airflow-dag-processor": api_server,
        "airflow-triggerer": api_server,
    }


def test_what_runs_for_ever_is_restarted_and_asked_how_it_is(compose: Compose) -> None:
    for name, service in compose.services.items():
        for_ever = name not in ONE_SHOTS | TOOLS
        assert (service.get("restart", "no") == "unless-stopped") == for_ever, name
        # The fleet listens nowhere.
        assert ("healthcheck" in service) == (for_ever and name != "simulate"), name


def test_everything_may_take_as_long_to_stop_as_with_make_up(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    for name, server in native_servers.items():
        assert seconds(compose.services[name]["stop_grace_period"]) >= server.stop_seconds, name
    drain_limit = Settings.model_fields["drain_limit"].default.total_seconds()
    for name in ("bridge", "sink"):
        assert seconds(compose.services[name]["stop_grace_period"]) > drain_limit + 20, name


def test_every_server_keeps_its_data(compose: Compose) -> None:
    data = {
        "mosquitto": "/mosquitto/data",
        "kafka": "/var/lib/kafka/data",
        "influxdb": "/var/lib/influxdb2",
        "postgres": "/var/lib/postgresql/data",
        "mailbox": "/tmp",  # noqa: S108 - a folder of the container's
    }
    for name, folder in data.items():
        assert compose.mounts(name)[folder] == (f"{name}-data", False)
    used = {
        source
        for name in compose.services
        for source, _ in compose.mounts(name).values()
        if not source.startswith(".")
    }
    assert used == compose.volumes


def _all_before(compose: Compose, name: str) -> set[str]:
    found: set[str] = set()
    for other in compose.services[name].get("depends_on", {}):
        found |= {other, *_all_before(compose, other)}
    return found


def _flat(connection: str) -> dict[str, Any]:
    """A Connection without what is an address or a folder."""
    content = json.loads(connection)
    flat = {**content, **content["extra"]}
    del flat["extra"]
    return {
        name: value for name, value in flat.items() if name not in DIFFERENT_IN_CONNECTIONS
    } | dict.fromkeys(DIFFERENT_IN_CONNECTIONS & set(flat))
