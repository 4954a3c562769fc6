"""Settings that open servers to other machines, and refused combinations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.outside import kafka_advertised, outside_addresses
from headrace.settings import Settings, load_settings

LOGINS = {"mqtt_login": "password"}
EVERYWHERE = "0.0.0.0:8883"


def load(**given: str) -> Settings:
    return load_settings(Path(os.devnull), **given)


@pytest.mark.parametrize("name", ["mqtt_listen", "mqtt_websocket_listen"])
def test_a_broker_without_logins_stays_on_loopback(name: str) -> None:
    sentence = rf"^HEADRACE_{name.upper()} opens .* Set HEADRACE_MQTT_LOGIN=password$"
    with pytest.raises(ConfigurationError, match=sentence):
        load(**{name: EVERYWHERE})
    assert load(**{name: EVERYWHERE}, **LOGINS)


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("mqtt_listen", "0.0.0.0:1883", "HEADRACE_MQTT_PORT"),
        ("mqtt_websocket_listen", "[::]:1883", "HEADRACE_MQTT_PORT"),
        ("kafka_listen", "192.0.2.7:9092", "HEADRACE_KAFKA_PORT"),
        ("kafka_listen", "192.0.2.7:9093", "HEADRACE_KAFKA_CONTROLLER_PORT"),
    ],
)
def test_a_port_in_plain_text_is_refused(name: str, value: str, plain: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"HEADRACE_{name.upper()}: .* {plain}, .* TLS"):
        load(**{name: value}, **LOGINS)


@pytest.mark.parametrize(
    "value",
    ["mqtt://0.0.0.0:1883", "broker.example.com:8883", "0.0.0.0", "::8883", "1.2.3:1"],  # noqa: S104
)
def test_only_addresses_are_accepted_for_listening(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_MQTT_LISTEN: .* Write one or more IP"):
        load(mqtt_listen=value, **LOGINS)


def test_two_protocols_need_two_ports() -> None:
    given = {"mqtt_listen": "0.0.0.0:8883", "mqtt_websocket_listen": "[::]:8883"}
    with pytest.raises(ConfigurationError, match="port 8883 is also in HEADRACE_MQTT_LISTEN"):
        load(**given, **LOGINS)


def test_several_addresses_are_accepted() -> None:
    settings = load(mqtt_listen="0.0.0.0:8883, [::]:8883,[fe80::1]:8885", **LOGINS)
    assert outside_addresses(settings) == {
        "HEADRACE_MQTT_LISTEN": (("0.0.0.0", 8883), ("::", 8883), ("fe80::1", 8885))  # noqa: S104
    }


@pytest.mark.parametrize("listen", ["0.0.0.0:9094", "[::]:9094"])
def test_kafka_needs_an_address_that_consumers_can_use(listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Set HEADRACE_KAFKA_ADVERTISED .*:9094$"):
        load(kafka_listen=listen)
    with pytest.raises(ConfigurationError, match="no client can connect to"):
        load(kafka_listen=listen, kafka_advertised=listen)
    advertised = "kafka.example.com:9094"
    assert kafka_advertised(load(kafka_listen=listen, kafka_advertised=advertised)) == advertised


def test_kafka_advertises_its_listen_address_if_it_is_usable() -> None:
    assert kafka_advertised(load(kafka_listen="192.0.2.7:9094")) == "192.0.2.7:9094"
    assert kafka_advertised(load()) is None


def test_an_advertised_address_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no effect without HEADRACE_KAFKA_LISTEN"):
        load(kafka_advertised="kafka.example.com:9094")


@pytest.mark.parametrize(("given", "missing"), [("cert", "key"), ("key", "cert")])
def test_certificate_and_key_are_required_together(given: str, missing: str) -> None:
    sentence = f"HEADRACE_SERVER_{given.upper()}_FILE .* without HEADRACE_SERVER_{missing.upper()}"
    with pytest.raises(ConfigurationError, match=sentence):
        load(**{f"server_{given}_file": __file__})
