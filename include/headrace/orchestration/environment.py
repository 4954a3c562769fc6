"""Derives Airflow's configuration from the settings of Headrace.

`make up` and the images (``docker/airflow.py``) use it. It does not import Airflow, because it
runs before Airflow reads its configuration.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy.engine import URL

from headrace.checks.addresses import is_loopback
from headrace.errors import ConfigurationError
from headrace.settings import Settings, SmtpSecurity
from headrace.storage.kafka import Kafka

__all__ = ["derived_environment", "write_login"]

#: Paths of the CA certificates on Debian, Fedora and Alpine.
_SYSTEM_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def derived_environment(settings: Settings, api_server: str) -> dict[str, str]:
    """Return the environment variables of every Airflow process.

    Parameters
    ----------
    settings
        Addresses and secrets.
    api_server
        URL at which Airflow's processes reach the api-server, without a path.

    Raises
    ------
    ConfigurationError
        If a secret is missing.
    """
    # Airflow serves all pages below the path of its public URL.
    path = urlsplit(settings.public_airflow_url).path
    jwt_secret = _secret(settings.airflow_jwt_secret)
    return {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api_server}{path}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_user}:admin",
        "AIRFLOW__CORE__FERNET_KEY": _secret(settings.airflow_fernet_key),
        "AIRFLOW__API__BASE_URL": settings.public_airflow_url,
        "AIRFLOW__API__SECRET_KEY": jwt_secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": jwt_secret,
        **_database(settings),
        **_connections(settings),
    }


def write_login(settings: Settings, path: Path) -> None:
    """Write the login of Airflow's UI to a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(json.dumps({settings.airflow_user: _secret(settings.airflow_password)}))


def _connections(settings: Settings) -> dict[str, str]:
    """Return the Airflow Connections of the servers, as environment variables."""
    connections = {
        "KAFKA_DEFAULT": {
            "conn_type": "kafka",
            "extra": dict(Kafka.from_settings(settings).config),
        },
        "INFLUXDB_DEFAULT": _influxdb(settings),
        # The clean-up needs this, because Airflow hides its database from tasks.
        "AIRFLOW_METADATA": {
            "conn_type": "postgres",
            "host": settings.postgres_host,
            "port": settings.postgres_port,
            "login": settings.postgres_user,
            "password": _postgres_password(settings),
            "schema": settings.postgres_database,
            "extra": _postgres_tls(settings),
        },
        "SMTP_DEFAULT": _smtp(settings),
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()}


def _influxdb(settings: Settings) -> dict[str, Any]:
    ca_file = settings.influx_ca_file
    extra = {"org": settings.influx_org, "ca_file": str(ca_file) if ca_file else None}
    connection: dict[str, Any] = {
        "conn_type": "generic",
        "host": settings.influx_host,
        "port": settings.influx_port,
        "schema": "https" if settings.influx_tls else "http",
        "extra": extra,
    }
    if settings.influx_token is not None:
        connection["password"] = settings.influx_token.get_secret_value()
    else:
        extra["token_file"] = str((settings.tokens_dir / "airflow.token").resolve())
    return connection


def _smtp(settings: Settings) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "disable_ssl": settings.smtp_security is not SmtpSecurity.TLS,
        # Airflow calls STARTTLS "TLS" here.
        "disable_tls": settings.smtp_security is not SmtpSecurity.STARTTLS,
        "from_email": settings.alert_from,
        "timeout": 10,
        "retry_limit": 3,
    }
    if settings.smtp_ca_file:
        extra["ca_file"] = str(settings.smtp_ca_file)
    connection: dict[str, Any] = {
        "conn_type": "smtp",
        "host": settings.smtp_host,
        "port": settings.smtp_port,
        "extra": extra,
    }
    if settings.smtp_username is not None and settings.smtp_password is not None:
        connection["login"] = settings.smtp_username
        connection["password"] = settings.smtp_password.get_secret_value()
    return connection


def _database(settings: Settings) -> dict[str, str]:
    """Return the address of Airflow's database, quoted so that any password works.

    Airflow connects with psycopg2 and with asyncpg, whose parameters for TLS differ. Both read
    PostgreSQL's environment variables.
    """
    url = URL.create(
        "postgresql+psycopg2",
        settings.postgres_user,
        _postgres_password(settings),
        settings.postgres_host,
        settings.postgres_port,
        settings.postgres_database,
    )
    tls = {f"PG{name.upper()}": value for name, value in _postgres_tls(settings).items()}
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.render_as_string(hide_password=False),
        **tls,
    }


def _postgres_tls(settings: Settings) -> dict[str, str]:
    """Return the TLS parameters of PostgreSQL's clients."""
    if not settings.postgres_tls:
        return {}
    return {
        "sslmode": "verify-full",
        "sslrootcert": str(settings.postgres_ca_file or _system_ca_file()),
    }


def _system_ca_file() -> Path:
    """Return the file of the system's CA certificates, which the drivers do not find."""
    given = ssl.get_default_verify_paths().cafile
    paths = [Path(path) for path in (given, *_SYSTEM_CA_FILES) if path]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        msg = (
            "HEADRACE_POSTGRES_TLS is true and this system has no CA certificates in "
            f"{', '.join(map(str, paths))}: install them, or set HEADRACE_POSTGRES_CA_FILE"
        )
        raise ConfigurationError(msg)
    return found


def _postgres_password(settings: Settings) -> str | None:
    """Return the password of the database. A server elsewhere may not need one."""
    if settings.postgres_password is None and not is_loopback(settings.postgres_host):
        return None
    return _secret(settings.postgres_password)


def _secret(value: SecretStr | None) -> str:
    if value is None:
        msg = "a secret of Airflow is missing: `make env` writes all secrets into a new .env"
        raise ConfigurationError(msg)
    return value.get_secret_value()
