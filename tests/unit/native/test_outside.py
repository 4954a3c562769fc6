"""`make up` with settings that open servers to other machines."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.certificates.authority import Authority
from headrace.errors import ConfigurationError
from headrace.settings import BundledServer, Settings, load_settings
from native.outside import (
    broker_lines,
    kafka_properties,
    refuse_servers_of_others,
    shown_addresses,
)

EVERYWHERE = "0.0.0.0"  # noqa: S104


def settings(folder: Path, **given: str) -> Settings:
    logins = {"mqtt_login": "password", "state_dir": str(folder)}
    return load_settings(folder / "none", **logins, **given)


def issue(folder: Path) -> None:
    now = datetime.now(UTC)
    Authority(folder / "certificates", now).issue(["h.example.com"], timedelta(days=1))


def test_by_default_no_listener_is_added(tmp_path: Path) -> None:
    default = settings(tmp_path)
    assert broker_lines(default, tmp_path / "mosquitto") == ()
    assert kafka_properties(default, tmp_path / "kafka", port=1, controller_port=2) == {}
    assert shown_addresses(default) == []
    assert not list(tmp_path.iterdir())


def test_every_listener_of_the_broker_has_tls_and_names_sessions_after_logins(
    tmp_path: Path,
) -> None:
    issue(tmp_path)
    opened = settings(
        tmp_path,
        mqtt_listen=f"{EVERYWHERE}:8883,[::]:8883",
        mqtt_websocket_listen="192.0.2.7:8884",
    )
    text = "\n".join(broker_lines(opened, tmp_path / "mosquitto"))
    listeners = text.split("listener ")[1:]
    addresses = [listener.splitlines()[0] for listener in listeners]
    assert addresses == [f"8883 {EVERYWHERE}", "8883 ::", "8884 192.0.2.7"]
    for listener in listeners:
        lines = dict(line.split(" ", 1) for line in listener.splitlines()[1:])
        assert set(lines) == {"protocol", "certfile", "keyfile", "use_username_as_clientid"}
        assert lines["use_username_as_clientid"] == "true"
        assert stat.S_IMODE(Path(lines["keyfile"]).stat().st_mode) == 0o600
    assert "protocol websockets" in listeners[2]


def test_a_new_certificate_changes_the_configuration_and_replaces_the_files(
    tmp_path: Path,
) -> None:
    """So that `make up` restarts the servers that use it."""
    opened = settings(tmp_path, mqtt_listen=f"{EVERYWHERE}:8883", kafka_listen="192.0.2.7:9094")
    with pytest.raises(ConfigurationError, match="requires a certificate"):
        broker_lines(opened, tmp_path / "mosquitto")
    with pytest.raises(ConfigurationError, match="requires a certificate"):
        kafka_properties(opened, tmp_path / "kafka", port=1, controller_port=2)
    seen = []
    for _ in range(2):
        issue(tmp_path)
        lines = broker_lines(opened, tmp_path / "mosquitto")
        assert lines == broker_lines(opened, tmp_path / "mosquitto")
        seen.append(
            (lines, kafka_properties(opened, tmp_path / "kafka", port=1, controller_port=2))
        )
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]
    assert len(list((tmp_path / "mosquitto").iterdir())) == 2
    assert len(list((tmp_path / "kafka").iterdir())) == 1


def test_kafka_checks_rules_only_if_it_is_open(tmp_path: Path) -> None:
    issue(tmp_path)
    opened = settings(
        tmp_path,
        kafka_listen=f"{EVERYWHERE}:9094",
        kafka_advertised="h.example.com:19094",
    )
    found = kafka_properties(opened, tmp_path / "kafka", port=9092, controller_port=9093)
    assert found["listeners"] == (
        f"PLAINTEXT://127.0.0.1:9092,OUTSIDE://{EVERYWHERE}:9094,CONTROLLER://127.0.0.1:9093"
    )
    assert found["advertised.listeners"] == (
        "PLAINTEXT://127.0.0.1:9092,OUTSIDE://h.example.com:19094"
    )
    assert "StandardAuthorizer" in found["authorizer.class.name"]


@pytest.mark.parametrize(
    ("given", "other"),
    [
        ({"mqtt_listen": "192.0.2.7:8883"}, "HEADRACE_MQTT_HOST"),
        ({"kafka_listen": "192.0.2.7:9094"}, "HEADRACE_KAFKA_BOOTSTRAP"),
    ],
)
def test_your_own_server_is_not_opened(given: dict[str, str], other: str, tmp_path: Path) -> None:
    opened = settings(tmp_path, **given)
    refuse_servers_of_others(opened, frozenset(BundledServer))
    with pytest.raises(ConfigurationError, match=f"{other} or HEADRACE_OWN_SERVERS names one of"):
        refuse_servers_of_others(opened, frozenset())


def test_the_panel_shows_the_names_of_the_certificate(tmp_path: Path) -> None:
    issue(tmp_path)
    opened = settings(
        tmp_path,
        mqtt_listen=f"{EVERYWHERE}:8883,[::]:8883",
        mqtt_websocket_listen=f"{EVERYWHERE}:8884",
        kafka_listen="192.0.2.7:9094",
    )
    shown = [(what, address) for what, address, _ in shown_addresses(opened)]
    assert shown == [
        ("MQTT with TLS", "h.example.com:8883"),
        ("MQTT, WebSockets", "h.example.com:8884"),
        ("Kafka with TLS", "192.0.2.7:9094"),
    ]
