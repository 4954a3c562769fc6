"""Settings come from the environment and .env; wrong ones are refused with their name."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from headrace.errors import ConfigurationError
from headrace.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_environment_wins_over_the_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / ".env").write_text("HEADRACE_MQTT_PORT=1\nHEADRACE_KAFKA_PARTITIONS=3\n")
    monkeypatch.setenv("HEADRACE_MQTT_PORT", "2")
    settings = load_settings()
    assert (settings.mqtt_port, settings.kafka_partitions) == (2, 3)


def test_an_empty_setting_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MQTT_PORT", "")
    assert load_settings().mqtt_port == Settings.model_fields["mqtt_port"].default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADRACE_MQTT_PORT", "seventeen"),
        ("HEADRACE_MQTT_PORT", "70000"),
        ("HEADRACE_SINK_LINGER", "soon"),
        ("HEADRACE_KAFKA_PROTOCOL", "carrier pigeon"),
        ("HEADRACE_INSTALLED_AT", "2026-01-01T00:00:00"),
        ("HEADRACE_BRIDGE_ID", "with a space"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        load_settings()


def test_an_unknown_setting_is_named_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MQTT_PROT", "1883")
    with pytest.raises(ConfigurationError, match=r"HEADRACE_MQTT_PROT .* HEADRACE_MQTT_PORT"):
        load_settings()


def test_an_unknown_setting_in_the_file_is_named(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text("HEADRACE_KAKFA_PARTITIONS=3\n")
    with pytest.raises(ConfigurationError, match="HEADRACE_KAKFA_PARTITIONS"):
        load_settings()


def test_a_secret_can_be_read_from_a_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "secret").write_text("hush\n")
    monkeypatch.setenv("HEADRACE_MQTT_PASSWORD_FILE", str(empty_folder / "secret"))
    password = load_settings().mqtt_password
    assert isinstance(password, SecretStr)
    assert password.get_secret_value() == "hush"


def test_a_missing_file_of_a_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MQTT_PASSWORD_FILE", "nowhere")
    with pytest.raises(ConfigurationError, match="HEADRACE_MQTT_PASSWORD_FILE: nowhere"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("HEADRACE_KAFKA_USERNAME", "headrace")
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD", "hush-hush")
    assert "hush-hush" not in repr(load_settings())
    assert "hush-hush" not in str(load_settings().model_dump())


def test_a_wrong_secret_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD", "hush-hush")
    monkeypatch.setenv("HEADRACE_MQTT_PORT", "x")
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert "hush-hush" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_durations_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DRAIN_LIMIT", "1.5m")
    monkeypatch.setenv("HEADRACE_MQTT_TOPICS", "a/+, b/+")
    settings = load_settings()
    assert settings.drain_limit == timedelta(seconds=90)
    assert settings.mqtt_topics == ("a/+", "b/+")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"airflow_host": "0.0.0.0", "airflow_port": 80}, "http://127.0.0.1:80"),  # noqa: S104
        ({"airflow_host": "10.0.0.7"}, "http://10.0.0.7:8080"),
        ({"airflow_url": "https://airflow.example.com/ops/"}, "https://airflow.example.com/ops"),
    ],
)
def test_links_use_a_public_address(given: dict[str, Any], url: str) -> None:
    assert load_settings(**given).public_airflow_url == url


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().mqtt_port = 5  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mqtt_cert_file": "x"}, "MQTT_CERT_FILE is set and HEADRACE_MQTT_KEY_FILE is not"),
        ({"mqtt_key_file": "x"}, "MQTT_KEY_FILE is set and HEADRACE_MQTT_CERT_FILE is not"),
        ({"mqtt_cert_file": "x", "mqtt_key_file": "x"}, "Set HEADRACE_MQTT_TLS=true"),
    ],
)
def test_half_a_client_certificate_is_refused(
    given: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "x").touch()
    files = {name: str(tmp_path / value) for name, value in given.items()}
    with pytest.raises(ConfigurationError, match=said):
        load_settings(Path(os.devnull), **files)
