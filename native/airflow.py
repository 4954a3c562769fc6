"""Airflow's processes, and their environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from dotenv import dotenv_values
from pydantic import SecretStr
from sqlalchemy.engine import URL

from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.storage.kafka import Kafka
from native.programs import HERE
from native.servers import LOOPBACK, Server

__all__ = ["airflow_environment", "airflow_servers", "init_commands"]

_CHECKOUT = HERE.parent
_WILDCARDS = ("0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not listened on


def airflow_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Environment of every Airflow process.

    Parameters
    ----------
    settings
        Addresses and secrets.
    folder
        ``AIRFLOW_HOME``: holds logs, and the password of the UI's user.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = _read_env_file(HERE / "config" / "airflow.env")
    # Airflow serves everything below the path of its public URL.
    api = settings.local_airflow_url + urlsplit(settings.public_airflow_url).path
    return {
        **shared,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_CHECKOUT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(_CHECKOUT / "plugins"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords(settings, folder)),
        "AIRFLOW__CORE__FERNET_KEY": _secret(settings.airflow_fernet_key),
        "AIRFLOW__API__HOST": settings.airflow_host,
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        "AIRFLOW__API__BASE_URL": settings.public_airflow_url,
        "AIRFLOW__API__SECRET_KEY": _secret(settings.airflow_jwt_secret),
        "AIRFLOW__API_AUTH__JWT_SECRET": _secret(settings.airflow_jwt_secret),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _database_url(settings),
        **_connections(settings),
        **_no_proxy(settings),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def airflow_servers(
    settings: Settings, folder: Path, environment: Mapping[str, str]
) -> list[Server]:
    """Airflow's four processes. The api-server is first: the others need it."""
    health = f"{settings.local_airflow_url}/api/v2/monitor/health"
    airflow = str(Path(sys.executable).parent / "airflow")

    def process(*arguments: str, part: str | None = None) -> Server:
        return Server(
            f"airflow-{arguments[0]}",
            (airflow, *arguments),
            folder,
            environment=environment,
            ready=lambda: _part_is_healthy(health, part),
            stop_seconds=40,
        )

    return [
        process("api-server"),
        # Logs are read from the disk, so no process needs to serve them.
        process("scheduler", "--skip-serve-logs", part="scheduler"),
        process("dag-processor", part="dag_processor"),
        process("triggerer", "--skip-serve-logs", part="triggerer"),
    ]


def init_commands() -> list[tuple[str, ...]]:
    """Commands that run before Airflow starts. They can be repeated."""
    airflow = str(Path(sys.executable).parent / "airflow")
    return [
        (airflow, "db", "migrate"),
        (airflow, "pools", "import", str(HERE / "config" / "pools.json")),
    ]


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
            "host": LOOPBACK,
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
        LOOPBACK,
        settings.postgres_port,
        "airflow",
    )
    return url.render_as_string(hide_password=False)


def _no_proxy(settings: Settings) -> dict[str, str]:
    """Hosts that Airflow's processes reach directly, whatever ``http_proxy`` says.

    A proxy cannot reach loopback addresses of this machine. Without this, every task fails
    where a proxy is set.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    host = settings.airflow_host
    direct = [LOOPBACK, "localhost", "::1", *([] if host in _WILDCARDS else [host])]
    value = ",".join(dict.fromkeys([*names, *direct]))
    return {"no_proxy": value, "NO_PROXY": value}


def _passwords(settings: Settings, folder: Path) -> Path:
    path = folder / "passwords.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({settings.airflow_user: _secret(settings.airflow_password)}))
    return path


def _secret(value: SecretStr | None) -> str:
    if value is None:
        msg = "a secret of Airflow is missing: `make env` writes all secrets into a new .env"
        raise ConfigurationError(msg)
    return value.get_secret_value()


def _read_env_file(path: Path) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(path).items()}


def _part_is_healthy(url: str, part: str | None) -> bool:
    try:
        response = urllib3.request("GET", url, timeout=5, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    if response.status != 200:  # noqa: PLR2004
        return False
    return part is None or response.json().get(part, {}).get("status") == "healthy"
