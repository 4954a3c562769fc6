"""`make up` neither starts nor checks the user's servers, and shows their addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.settings import load_settings
from native import programs, servers, up
from native.bundled import local_kafka_port
from native.dotenv import write_env
from native.panel import server_rows
from native.programs import Program
from native.servers import LOOPBACK
from native.stack import Programs, find_programs, load_stack

NOTHING = Programs(*[Program(Path("program"))] * 5)
ALL = {"mosquitto", "kafka", "influxdb", "postgres", "mailbox"}
#: Settings of each server elsewhere, and the port that must not be checked.
ELSEWHERE = {
    "mosquitto": ({"MQTT_HOST": "broker.example.com", "MQTT_PORT": "8883"}, 8883),
    "kafka": ({"KAFKA_BOOTSTRAP": "kafka.example.com:9095"}, 9095),
    "influxdb": ({"INFLUX_HOST": "influx.example.com", "INFLUX_PORT": "443"}, 443),
    "postgres": ({"POSTGRES_HOST": "db.example.com", "POSTGRES_PORT": "5432"}, 5432),
    "mailbox": ({"SMTP_HOST": "relay.example.com", "SMTP_PORT": "587"}, 587),
}


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers, "run_step", lambda *_, **__: None)
    monkeypatch.setattr(servers, "service_user", lambda: None)
    data = tmp_path / "state" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")


def env_with(folder: Path, **changes: str) -> Path:
    path = folder / "env"
    write_env(path)
    lines = [f"HEADRACE_{name}={value}" for name, value in changes.items()]
    state = f"HEADRACE_STATE_DIR='{folder / 'state'}'"
    path.write_text("\n".join((path.read_text(), state, *lines, "")))
    return path


def started(env: Path) -> set[str]:
    return {server.name for server in load_stack(env).servers(NOTHING)}


@pytest.mark.parametrize("server", ELSEWHERE)
def test_a_server_elsewhere_is_not_started_and_its_port_not_checked(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, its_port = ELSEWHERE[server]
    env = env_with(tmp_path, **changes)
    names = started(env)
    assert names == ALL - {server}
    monkeypatch.setattr(up, "port_is_free", lambda port: port != its_port)
    up._check_ports(load_stack(env), names)


@pytest.mark.parametrize("server", ELSEWHERE)
def test_your_own_server_on_this_machine_needs_an_entry(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = env_with(tmp_path)
    monkeypatch.setattr(up, "port_is_free", lambda _: False)
    with pytest.raises(ConfigurationError, match=f"HEADRACE_OWN_SERVERS={server}$"):
        up._check_ports(load_stack(env), {server})
    assert started(env_with(tmp_path, OWN_SERVERS=server)) == ALL - {server}


def test_only_needed_programs_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    for name in ("kafka", "influxd", "mosquitto", "postgres", "maildev"):
        monkeypatch.setattr(
            programs,
            f"find_{name}",
            lambda _, name=name: looked.append(name) or Program(Path(name)),
        )
    env = env_with(tmp_path, OWN_SERVERS="kafka,influxdb", SMTP_HOST="relay.example.com")
    find_programs(print, load_stack(env).bundled)
    assert looked == ["mosquitto", "postgres"]


def test_the_other_loopback_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"HEADRACE_KAFKA_BOOTSTRAP.*{LOOPBACK}"):
        load_stack(env_with(tmp_path, KAFKA_BOOTSTRAP="[::1]:9092"))
    env = env_with(tmp_path, KAFKA_BOOTSTRAP="[::1]:9092", OWN_SERVERS="kafka")
    assert started(env) == ALL - {"kafka"}


def test_several_kafka_brokers_are_not_started_locally(tmp_path: Path) -> None:
    env = env_with(tmp_path, KAFKA_BOOTSTRAP="127.0.0.1:9092,127.0.0.1:9093")
    assert local_kafka_port(load_stack(env).settings) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"KAFKA_PROTOCOL": "SSL"}, "KAFKA_PROTOCOL .* OWN_SERVERS=kafka"),
        ({"INFLUX_TLS": "true"}, "INFLUX_TLS .* OWN_SERVERS=influxdb"),
        ({"INFLUX_TOKEN": "mine"}, "INFLUX_TOKEN .* OWN_SERVERS=influxdb"),
        ({"POSTGRES_TLS": "true"}, "POSTGRES_TLS .* OWN_SERVERS=postgres"),
        ({"POSTGRES_DATABASE": "mine"}, "POSTGRES_DATABASE .* OWN_SERVERS=postgres"),
        ({"SMTP_SECURITY": "tls"}, "SMTP_SECURITY .* OWN_SERVERS=mailbox"),
        ({"MQTT_TLS": "true"}, "MQTT_TLS .* OWN_SERVERS=mosquitto"),
    ],
)
def test_settings_that_the_bundled_server_can_not_fulfil_are_refused(
    changes: dict[str, str], named: str, tmp_path: Path
) -> None:
    pattern = named.replace(" .* ", ".* HEADRACE_")
    with pytest.raises(ConfigurationError, match=f"HEADRACE_{pattern}"):
        load_stack(env_with(tmp_path, **changes))
    server = named.rpartition("=")[2]
    assert server not in started(env_with(tmp_path, **changes, OWN_SERVERS=server))


def test_workers_do_not_get_settings_of_airflow(tmp_path: Path) -> None:
    """The remaining settings are consistent: a CA file without TLS would be refused."""
    (tmp_path / "ca.pem").touch()
    env = env_with(
        tmp_path,
        SMTP_HOST="relay.example.com",
        SMTP_SECURITY="tls",
        SMTP_CA_FILE=str(tmp_path / "ca.pem"),
        SMTP_USERNAME="mailer",
        SMTP_PASSWORD="hush",
        POSTGRES_HOST="db.example.com",
        POSTGRES_TLS="true",
        POSTGRES_CA_FILE=str(tmp_path / "ca.pem"),
    )
    loaded = load_stack(env)
    names = {*loaded.environment, *loaded.airflow_environment}
    assert not [name for name in names if name.startswith(("HEADRACE_SMTP", "HEADRACE_POSTGRES"))]
    assert "hush" in loaded.airflow_environment["AIRFLOW_CONN_SMTP_DEFAULT"]


def test_the_panel_shows_the_real_addresses(tmp_path: Path) -> None:
    shown = {name: address for name, address, _ in server_rows(load_settings(env_with(tmp_path)))}
    assert shown == {
        "Mailbox": f"http://{LOOPBACK}:1080",
        "MQTT": f"{LOOPBACK}:1883",
        "Kafka": f"{LOOPBACK}:9092",
        "InfluxDB": f"http://{LOOPBACK}:8086",
    }
    changes = {name: value for given, _ in ELSEWHERE.values() for name, value in given.items()}
    changes |= {"INFLUX_TLS": "true", "MQTT_HOST": "fd00::7"}
    env = env_with(tmp_path, **changes)
    rows = server_rows(load_settings(env))
    assert {name: address for name, address, _ in rows} == {
        "Mail": "relay.example.com:587",
        "MQTT": "[fd00::7]:8883",
        "Kafka": "kafka.example.com:9095",
        "InfluxDB": "https://influx.example.com:443",
        "PostgreSQL": "db.example.com:5432",
    }
    assert all("your server" in purpose for *_, purpose in rows)
