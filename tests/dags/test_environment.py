"""The environment of Airflow's processes: addresses, links, the database, and proxies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from headrace.errors import ConfigurationError
from headrace.settings import load_settings
from headrace.storage.kafka import Kafka
from native.airflow import airflow_environment

SECRETS = {
    "HEADRACE_AIRFLOW_PASSWORD": "a-password",
    "HEADRACE_AIRFLOW_JWT_SECRET": "a-secret" * 8,
    "HEADRACE_AIRFLOW_FERNET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "HEADRACE_POSTGRES_PASSWORD": "p@ss/?#%25 $HOME",
}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def environment(folder: Path) -> dict[str, str]:
    return airflow_environment(load_settings(), folder / "airflow")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])  # noqa: S104
def test_no_link_uses_a_wildcard_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    monkeypatch.setenv("HEADRACE_AIRFLOW_HOST", host)
    found = environment(tmp_path)
    assert found["AIRFLOW__API__HOST"] == host
    for name in ("AIRFLOW__API__BASE_URL", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"):
        assert "0.0.0.0" not in found[name]  # noqa: S104


def test_links_use_the_public_url_and_tasks_the_local_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADRACE_AIRFLOW_HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("HEADRACE_AIRFLOW_URL", "https://fleet.example.org/airflow/")
    found = environment(tmp_path)
    assert found["AIRFLOW__API__BASE_URL"] == "https://fleet.example.org/airflow"
    execution = found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert execution == "http://127.0.0.1:8080/airflow/execution/"


@pytest.mark.parametrize("given", ["", "intranet.example.org,10.0.0.0/8", "localhost"])
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_servers_on_this_machine_are_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, name: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv(name, given)
    monkeypatch.setenv("HEADRACE_AIRFLOW_HOST", "192.0.2.7")
    found = environment(tmp_path)
    assert found["no_proxy"] == found["NO_PROXY"]
    names = found["no_proxy"].split(",")
    assert {"127.0.0.1", "localhost", "::1", "192.0.2.7"} <= set(names)
    assert set(given.split(",")) - {""} <= set(names)
    assert len(names) == len(set(names))


def test_a_password_with_characters_of_a_url_reaches_the_database(tmp_path: Path) -> None:
    found = environment(tmp_path)
    url = make_url(found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    own = json.loads(found["AIRFLOW_CONN_AIRFLOW_METADATA"])
    assert url.password == own["password"] == SECRETS["HEADRACE_POSTGRES_PASSWORD"]
    assert (url.host, url.port, url.database) == (own["host"], own["port"], own["schema"])
    # Airflow expands variables in its settings.
    assert "$" not in found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def connection(found: dict[str, str], name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(found[f"AIRFLOW_CONN_{name}"])
    return loaded


def test_a_database_elsewhere_is_reached_with_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").touch()
    for name, value in {
        "HOST": "db.example.com",
        "PORT": "5432",
        "USER": "air flow",
        "DATABASE": "meta/data",
        "TLS": "true",
        "CA_FILE": str(tmp_path / "ca.pem"),
    }.items():
        monkeypatch.setenv(f"HEADRACE_POSTGRES_{name}", value)
    found = environment(tmp_path)
    url = make_url(found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    own = connection(found, "AIRFLOW_METADATA")
    assert (url.host, url.port) == ("db.example.com", 5432)
    assert (url.username, url.database) == ("air flow", "meta/data")
    assert (own["host"], own["login"], own["schema"]) == (url.host, url.username, url.database)
    tls = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "ca.pem")}
    assert own["extra"] == tls
    assert {"PGSSLMODE": tls["sslmode"], "PGSSLROOTCERT": tls["sslrootcert"]}.items() <= (
        found.items()
    )


def test_a_database_elsewhere_may_need_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEADRACE_POSTGRES_PASSWORD")
    with pytest.raises(ConfigurationError, match="a secret of Airflow is missing"):
        environment(tmp_path)
    monkeypatch.setenv("HEADRACE_POSTGRES_HOST", "db.example.com")
    found = environment(tmp_path)
    assert make_url(found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).password is None


@pytest.mark.parametrize(
    ("security", "off"),
    [("none", (True, True)), ("starttls", (True, False)), ("tls", (False, True))],
)
def test_the_mail_server_is_reached_as_the_settings_say(
    security: str, off: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"USERNAME": "mailer", "PASSWORD": "hush", "SECURITY": security}.items():
        monkeypatch.setenv(f"HEADRACE_SMTP_{name}", value)
    found = connection(environment(tmp_path), "SMTP_DEFAULT")
    assert (found["login"], found["password"]) == ("mailer", "hush")
    assert (found["extra"]["disable_ssl"], found["extra"]["disable_tls"]) == off


def test_a_token_of_one_s_own_replaces_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "token_file" in connection(environment(tmp_path), "INFLUXDB_DEFAULT")["extra"]
    monkeypatch.setenv("HEADRACE_INFLUX_TOKEN", "one-token")
    found = connection(environment(tmp_path), "INFLUXDB_DEFAULT")
    assert found["password"] == "one-token"
    assert "token_file" not in found["extra"]


def test_airflow_reaches_kafka_as_the_workers_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("CA_FILE", "CERT_FILE", "KEY_FILE"):
        (tmp_path / name).touch()
        monkeypatch.setenv(f"HEADRACE_KAFKA_{name}", str(tmp_path / name))
    for name, value in {
        "BOOTSTRAP": "kafka.example.com:9093",
        "PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "PLAIN",
        "USERNAME": "headrace",
        "PASSWORD": 'p@ss "word',
    }.items():
        monkeypatch.setenv(f"HEADRACE_KAFKA_{name}", value)
    extra = connection(environment(tmp_path), "KAFKA_DEFAULT")["extra"]
    assert extra == Kafka.from_settings(load_settings()).config
    assert extra == {
        "bootstrap.servers": "kafka.example.com:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "headrace",
        "sasl.password": 'p@ss "word',
        "ssl.ca.location": str(tmp_path / "CA_FILE"),
        "ssl.certificate.location": str(tmp_path / "CERT_FILE"),
        "ssl.key.location": str(tmp_path / "KEY_FILE"),
    }
