"""Every setting, taken from the schema, with unusual values.

Each value is refused when the settings are loaded, with the setting's name and what is allowed,
or is listed below as one that works. A new setting needs its accepted values in this
list.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.checks.explain import allowed_values
from headrace.errors import ConfigurationError
from headrace.settings import SECRETS, Settings, load_settings

#: Zero, negative, huge, wrong unit, wrong type, infinite, empty, unknown.
ODD_VALUES = (
    "0",
    "0s",
    "-1",
    "-1s",
    "1.5",
    "60",
    "500us",
    "1ns",
    "2 weeks",
    "PT1M",
    "60000d",
    "999999999999d",
    "9" * 400 + "d",
    "99999999999999999999",
    "9" * 5000,
    "1e999",
    "inf",
    "nan",
    "null",
    "[]",
    "{}",
    "tru",
    " ",
    "\t",
    "a b",
    "a\nb",
    "caf\u00e9\ud800",
    "http://host:1",
    "host:0",
    "host:70000",
    "::1:9092",
    "#/a",
    "a+/b",
    "x" * 70_000,
    "/dev/null/none",
    "/" + "x" * 5000,
    "2024",
    "2024-01-01T00:00:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "a@b@c",
    "@example.com",
    "a@example.com\nBcc: b@example.com",
)
_WORDS = {
    "0",
    "0s",
    "-1",
    "-1s",
    "1.5",
    "60",
    "500us",
    "1ns",
    "PT1M",
    "60000d",
    "999999999999d",
} | {
    "99999999999999999999",
    "1e999",
    "inf",
    "nan",
    "null",
    "tru",
    "2024",
}
_TEXTS = set(ODD_VALUES) - {"\t", "a\nb", "caf\u00e9\ud800", "a@example.com\nBcc: b@example.com"}
_TEXTS -= {value for value in ODD_VALUES if len(value) > 1000}
_SHORT = {value for value in _TEXTS if len(value) <= 100}
_NAMES = {value for value in _TEXTS if len(value) <= 63}
_PLAIN = {value for value in _TEXTS if " " not in value and value.isascii()}
# A host of digits only would be an incomplete IPv4 address; "::1:9092" is one IPv6 address.
_HOSTS = (_WORDS | {"::1:9092"}) - {"-1", "-1s", "1.5", "60", "0", "2024", "99999999999999999999"}
_FOLDERS = {value for value in _TEXTS if len(value) < 255 and not value.startswith("/dev/null/")}

#: Accepted values by setting. Some settings accept any text, such as names.
WORKING: dict[str, set[str]] = {
    "state_dir": _FOLDERS,
    "mqtt_username": _TEXTS,
    "kafka_username": _TEXTS,
    "smtp_username": _TEXTS,
    "postgres_user": _NAMES,
    "postgres_database": _NAMES,
    "influx_org": _SHORT,
    "influx_admin_user": _SHORT,
    "mqtt_password": _TEXTS,
    "kafka_password": _TEXTS,
    "smtp_password": _TEXTS,
    "airflow_password": _TEXTS,
    "airflow_jwt_secret": _TEXTS,
    "postgres_password": _TEXTS,
    "influx_admin_password": {value for value in _TEXTS if 8 <= len(value) <= 72},
    "influx_admin_token": _PLAIN,
    "influx_token": _PLAIN,
    "airflow_user": {
        value
        for value in _SHORT
        if value.replace("@", "").replace(".", "").replace("-", "").isalnum()
    }
    - {"caf\u00e9"},
    "airflow_url": {"http://host:1"},
    "bridge_id": _WORDS,
    "sink_id": _WORDS,
    # Topic filters accept any valid text; the bridge checks later that the profile covers them.
    "mqtt_topics": {value for value in _TEXTS if not set(value) & set("+#")} | {"\t"},
    "in_container": {"0"},
    "mqtt_tls": {"0"},
    "influx_tls": {"0"},
    "postgres_tls": {"0"},
    "mqtt_port": {"60"},
    "mqtt_receive_maximum": {"60"},
    "kafka_partitions": {"60"},
    "sink_batch_readings": {"60", "2024"},
    "fleet_size": {"0", "60", "2024"},
    "max_payload_bytes": {"2024"},
    "max_new_devices": {"60", "2024"},
    "max_devices": {"60", "2024"},
    "max_time_ahead": {"0s"},
    "settle_limit": {"0s"},
    "sink_linger": {"0s"},
    **{name: _HOSTS for name in Settings.model_fields if name.endswith("_host")},
    **{name: {"60", "2024"} for name in Settings.model_fields if name.endswith("_port")},
}
WORKING["mqtt_receive_maximum"] |= {"2024"}


#: What else has to be set for a setting to make sense.
BESIDE: dict[str, dict[str, str]] = {
    "kafka_username": {"kafka_protocol": "SASL_SSL", "kafka_password": "x"},
    "kafka_password": {"kafka_protocol": "SASL_SSL", "kafka_username": "x"},
    "smtp_username": {"smtp_password": "x"},
    "smtp_password": {"smtp_username": "x"},
}


def load(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Load the settings with one of them set, in the environment if possible."""
    for other, text in BESIDE.get(name, {}).items():
        monkeypatch.setenv(f"HEADRACE_{other.upper()}", text)
    try:
        monkeypatch.setenv(f"HEADRACE_{name.upper()}", value)
    except (ValueError, UnicodeEncodeError):
        return load_settings(Path(os.devnull), **{name: value})
    return load_settings(Path(os.devnull))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_unusual_value_is_refused_or_works(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = allowed_values(Settings.model_fields[name])
    assert allowed, f"{name} needs a check that says what it allows"
    working = WORKING.get(name, set())
    for value in ODD_VALUES:
        try:
            load(name, value, monkeypatch)
        except ConfigurationError as exc:
            assert f"HEADRACE_{name.upper()}" in str(exc)
            assert allowed in str(exc)
            assert len(str(exc)) < 600
            assert value not in working, f"{name} refuses {value!r}: {exc}"
        else:
            assert value in working, f"{name} accepts {value[:80]!r}"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_defaults_are_allowed(name: str) -> None:
    assert hasattr(load_settings(Path(os.devnull)), name)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_misspelt_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    misspelt = f"HEADRACE_{name.upper()[:-1]}"
    monkeypatch.setenv(misspelt, "1")
    with pytest.raises(ConfigurationError, match=misspelt) as refused:
        load_settings(Path(os.devnull))
    assert "did you mean HEADRACE_" in str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_refused_secrets_are_not_quoted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(name, "hush\nhush", monkeypatch)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "loaded"),
    [
        ("mqtt_host", "[::1]", "::1"),
        ("mqtt_host", "broker.example.com", "broker.example.com"),
        ("influx_host", "FE80::1", "fe80::1"),
        ("kafka_bootstrap", "[::1]:9092, kafka:9093", "[::1]:9092,kafka:9093"),
        ("alert_to", "a@example.com,b@example.com", "a@example.com, b@example.com"),
        ("airflow_url", "https://[::1]:8443/airflow/", "https://[::1]:8443/airflow"),
        ("mqtt_topics", "a/+,b/+", ("a/+", "b/+")),
    ],
)
def test_addresses_are_normalised(
    name: str, value: str, loaded: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(load(name, value, monkeypatch), name) == loaded


def test_urls_put_ipv6_in_brackets() -> None:
    settings = load_settings(
        Path(os.devnull), influx_host="::1", bridge_host="::1", sink_host="::", airflow_host="::1"
    )
    assert settings.influx_url == "http://[::1]:8086"
    assert settings.bridge_url == "http://[::1]:9101"
    assert settings.sink_url == "http://127.0.0.1:9102"
    assert settings.public_airflow_url == "http://[::1]:8080"


@pytest.mark.parametrize(
    "topics",
    [
        "emergency_generator/+,emergency_generator/gov",
        "a/#,a/b/c",
        "a/#,a",
        "#,x",
        "+/b,a/+",
        "a/b,a/b",
        "$share/g/a/+,a/b",
    ],
)
def test_topic_filters_that_overlap_are_refused(topics: str) -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_MQTT_TOPICS.*overlap"):
        load_settings(Path(os.devnull), mqtt_topics=topics)


def test_the_heal_horizon_is_within_the_raw_retention() -> None:
    with pytest.raises(ConfigurationError, match=r"HEADRACE_HEAL_HORIZON: 1d .* 2h or less"):
        load_settings(Path(os.devnull), raw_retention="2h")
    assert load_settings(Path(os.devnull), raw_retention="2h", heal_horizon="2h")


@pytest.mark.parametrize("content", [b"HEADRACE_MQTT_PORT 1883\n", b"\xff\xfe", b"=\n"])
def test_a_file_that_is_not_an_env_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"env"):
        load_settings(path)
