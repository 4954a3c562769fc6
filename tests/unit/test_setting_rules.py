"""Contradicting settings are refused when they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.settings import load_settings

#: Placeholder for an existing file.
FILE = "FILE"
SASL = {"kafka_protocol": "SASL_SSL", "kafka_username": "u", "kafka_password": "hush"}
TLS = {"kafka_protocol": "SSL"}
LOGIN = {"smtp_username": "u", "smtp_password": "hush"}

REFUSED = {
    "SASL without a user": (
        {"kafka_protocol": "SASL_SSL", "kafka_password": "hush"},
        "HEADRACE_KAFKA_PROTOCOL is SASL_SSL, so set HEADRACE_KAFKA_USERNAME",
    ),
    "SASL without a login": (
        {"kafka_protocol": "SASL_PLAINTEXT"},
        "set HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD",
    ),
    "a user without SASL": (
        {"kafka_username": "u"},
        "set it to SASL_SSL or SASL_PLAINTEXT, or remove HEADRACE_KAFKA_USERNAME",
    ),
    "a password without SASL": (
        {**TLS, "kafka_password": "hush"},
        "HEADRACE_KAFKA_PROTOCOL is SSL, which has no login",
    ),
    "Kafka's CA without TLS": (
        {"kafka_ca_file": FILE},
        "HEADRACE_KAFKA_PROTOCOL is PLAINTEXT, which has no TLS",
    ),
    "Kafka's client certificate without TLS": (
        {
            **SASL,
            "kafka_protocol": "SASL_PLAINTEXT",
            "kafka_cert_file": FILE,
            "kafka_key_file": FILE,
        },
        "or remove HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE",
    ),
    "Kafka's certificate without its key": (
        {**TLS, "kafka_cert_file": FILE},
        "HEADRACE_KAFKA_CERT_FILE is set without HEADRACE_KAFKA_KEY_FILE",
    ),
    "Kafka's key without its certificate": (
        {**TLS, "kafka_key_file": FILE},
        "HEADRACE_KAFKA_KEY_FILE is set without HEADRACE_KAFKA_CERT_FILE",
    ),
    "a broker at the container's own address": (
        {"in_container": "true", "mqtt_host": "127.0.0.1"},
        "HEADRACE_MQTT_HOST: inside a container, 127.0.0.1 is the container itself",
    ),
    "one of Kafka's brokers at the container's own address": (
        {"in_container": "true", "kafka_bootstrap": "kafka:9092,localhost:9092"},
        "HEADRACE_KAFKA_BOOTSTRAP: inside a container, localhost is the container itself",
    ),
    "InfluxDB's CA without TLS": ({"influx_ca_file": FILE}, "set HEADRACE_INFLUX_TLS=true"),
    "a mail login in plain text": (
        {**LOGIN, "smtp_host": "relay.example.com"},
        "the login would reach relay.example.com in plain text: set HEADRACE_SMTP_SECURITY",
    ),
    "a mail password without a user": (
        {"smtp_password": "hush", "smtp_security": "tls"},
        "HEADRACE_SMTP_PASSWORD is set without HEADRACE_SMTP_USERNAME",
    ),
    "a mail user without a password": (
        {"smtp_username": "u", "smtp_security": "tls"},
        "HEADRACE_SMTP_USERNAME is set without HEADRACE_SMTP_PASSWORD",
    ),
    "the mail server's CA without TLS": ({"smtp_ca_file": FILE}, "HEADRACE_SMTP_SECURITY is none"),
    "PostgreSQL's CA without TLS": ({"postgres_ca_file": FILE}, "set HEADRACE_POSTGRES_TLS=true"),
    "an unknown own server": ({"own_servers": "kafka,redis"}, "HEADRACE_OWN_SERVERS"),
    "a server twice": ({"own_servers": "kafka,kafka"}, "one is given twice"),
}

ACCEPTED = {
    "mutual TLS": {**TLS, "kafka_cert_file": FILE, "kafka_key_file": FILE, "kafka_ca_file": FILE},
    "SASL and a client certificate": {**SASL, "kafka_cert_file": FILE, "kafka_key_file": FILE},
    "a login in plain text at a broker of a trusted network": {
        **SASL,
        "kafka_protocol": "SASL_PLAINTEXT",
    },
    "a mail relay with STARTTLS": {
        **LOGIN,
        "smtp_host": "relay.example.com",
        "smtp_security": "starttls",
        "smtp_ca_file": FILE,
    },
    "a mail login on loopback": {**LOGIN, "smtp_host": "localhost"},
    "a mail login on IPv6 loopback": {**LOGIN, "smtp_host": "::1"},
    "a relay without a login": {"smtp_host": "relay.example.com"},
    "PostgreSQL with TLS": {"postgres_tls": "true", "postgres_ca_file": FILE},
    "servers on loopback": {"own_servers": "kafka, postgres"},
    "a container, and servers elsewhere": {"in_container": "true", "mqtt_host": "mosquitto"},
    "a container that connects to nothing on loopback": {"in_container": "true"},
}


def load(given: dict[str, str], folder: Path) -> None:
    path = folder / "file.pem"
    path.touch()
    settings = {name: str(path) if value == FILE else value for name, value in given.items()}
    load_settings(Path(os.devnull), **settings)


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused(case: str, tmp_path: Path) -> None:
    given, sentence = REFUSED[case]
    with pytest.raises(ConfigurationError) as refused:
        load(given, tmp_path)
    assert sentence in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("case", ACCEPTED)
def test_working_combinations_are_accepted(case: str, tmp_path: Path) -> None:
    load(ACCEPTED[case], tmp_path)


def test_all_contradictions_are_reported_together() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(Path(os.devnull), kafka_username="u", smtp_password="hush")
    assert "HEADRACE_KAFKA_USERNAME" in str(refused.value)
    assert "HEADRACE_SMTP_PASSWORD" in str(refused.value)
