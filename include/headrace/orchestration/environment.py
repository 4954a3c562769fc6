"""Airflow's configuration as it follows from the settings of Headrace.

Both ways of running use it: `make up`, and the images (``docker/airflow.py``). It imports
nothing of Airflow, because it runs before Airflow reads its configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy.engine import URL

from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.storage.kafka import Kafka

__all__ = ["derived_environment", "write_login"]

_POSTGRES_HOST = "127.0.0.1"


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
    # Airflow serves everything below the path of its public URL.
    path = urlsplit(settings.public_airflow_url).path
    jwt_secret = _secret(settings.airflow_jwt_secret)
    return {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api_server}{path}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_user}:admin",
        "AIRFLOW__CORE__FERNET_KEY": _secret(settings.airflow_fernet_key),
        "AIRFLOW__API__BASE_URL": settings.public_airflow_url,
        "AIRFLOW__API__SECRET_KEY": jwt_secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": jwt_secret,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _database_url(settings),
        **_connections(settings),
    }


def write_login(settings: Settings, path: Path) -> None:
    """Write the login of Airflow's UI to a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(json.dumps({settings.airflow_user: _secret(settings.airflow_password)}))


def _connections(settings: Settings) -> dict[str, str]:
    """The servers as Airflow Connections, in environment variables."""
    connections = {
        "KAFKA_DEFAULT": {
            "conn_type": "kafka",
            "extra": dict(Kafka.from_settings(settings).config),
        },
        "INFLUXDB_DEFAULT": {
            "conn_type": "generic",
            "host": settings.influx_host,
            "port": settings.influx_port,
            "schema": "https" if settings.influx_tls else "http",
            "extra": {
                "org": settings.influx_org,
                "token_file": str((settings.tokens_dir / "airflow.token").resolve()),
                "ca_file": str(settings.influx_ca_file) if settings.influx_ca_file else None,
            },
        },
        # For the clean-up: Airflow hides its database from tasks.
        "AIRFLOW_METADATA": {
            "conn_type": "postgres",
            "host": _POSTGRES_HOST,
            "port": settings.postgres_port,
            "login": "airflow",
            "password": _secret(settings.postgres_password),
            "schema": "airflow",
        },
        "SMTP_DEFAULT": {
            "conn_type": "smtp",
            "host": settings.smtp_host,
            "port": settings.smtp_port,
            "extra": {
                "disable_ssl": True,
                "disable_tls": True,
                "from_email": settings.alert_from,
                "timeout": 10,
                "retry_limit": 3,
            },
        },
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()}


def _database_url(settings: Settings) -> str:
    """URL of Airflow's database. A password may hold any character."""
    url = URL.create(
        "postgresql+psycopg2",
        "airflow",
        _secret(settings.postgres_password),
        _POSTGRES_HOST,
        settings.postgres_port,
        "airflow",
    )
    return url.render_as_string(hide_password=False)


def _secret(value: SecretStr | None) -> str:
    if value is None:
        msg = "a secret of Airflow is missing: `make env` writes all secrets into a new .env"
        raise ConfigurationError(msg)
    return value.get_secret_value()
