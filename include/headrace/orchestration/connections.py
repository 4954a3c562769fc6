"""Clients of the servers, created from Airflow's Connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy.engine import URL

from headrace.checks.addresses import url_host
from headrace.errors import ConfigurationError
from headrace.profile import Profile, load_profile
from headrace.settings import Settings, load_settings
from headrace.stages.factory import make_pipeline
from headrace.stages.pipeline import Pipeline
from headrace.storage.influx import Influx, InfluxAddress
from headrace.storage.kafka import Kafka

__all__ = [
    "INFLUXDB_CONN_ID",
    "KAFKA_CONN_ID",
    "METADATA_CONN_ID",
    "SMTP_CONN_ID",
    "kafka_config",
    "metadata_url",
    "open_pipeline",
    "task_settings",
]

INFLUXDB_CONN_ID = "influxdb_default"
KAFKA_CONN_ID = "kafka_default"
METADATA_CONN_ID = "airflow_metadata"
SMTP_CONN_ID = "smtp_default"

_DATABASES = {
    "postgres": "postgresql+psycopg2",
    "postgresql": "postgresql+psycopg2",
    "mysql": "mysql+mysqldb",
}
#: TLS parameters in the extra of Airflow's Connections to PostgreSQL.
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")


def task_settings() -> tuple[Settings, Profile]:
    """Read the settings and the profile, in a task or while a DAG is created."""
    settings = load_settings()
    return settings, load_profile(settings.profile)


@contextmanager
def open_pipeline(timeout: timedelta | Callable[[Profile], timedelta]) -> Iterator[Pipeline]:
    """Open the clients of the stages, for the duration of a task.

    Parameters
    ----------
    timeout
        Time limit of one call to InfluxDB, or a function that derives it from the profile.
    """
    settings, profile = task_settings()
    limit = timeout if isinstance(timeout, timedelta) else timeout(profile)
    with Influx(_influx_address(), timeout=limit) as influx:
        yield make_pipeline(settings, profile, influx, Kafka(kafka_config()))


def kafka_config() -> dict[str, Any]:
    """Return librdkafka's settings from the Kafka Connection."""
    config: dict[str, Any] = _connection(KAFKA_CONN_ID).extra_dejson
    if not config.get("bootstrap.servers"):
        msg = f"the Airflow Connection {KAFKA_CONN_ID} has no bootstrap.servers in its extra"
        raise ConfigurationError(msg)
    return config


def metadata_url() -> str | None:
    """Return the SQLAlchemy URL of Airflow's database from the Connection `airflow_metadata`.

    Returns
    -------
    str or None
        `None` if there is no such Connection.

    Raises
    ------
    ConfigurationError
        If the Connection names another kind of database.
    """
    try:
        connection = BaseHook.get_connection(METADATA_CONN_ID)
    except AirflowNotFoundException:
        return None
    extra = connection.extra_dejson
    driver = extra.get("sqlalchemy_scheme") or _DATABASES.get(connection.conn_type or "")
    if driver is None:
        msg = (
            f"the Airflow Connection {METADATA_CONN_ID} has the type {connection.conn_type!r}: "
            f"it must be one of {', '.join(_DATABASES)}"
        )
        raise ConfigurationError(msg)
    url = URL.create(
        driver,
        connection.login,
        connection.password,
        connection.host,
        connection.port,
        connection.schema or "airflow",
        {name: str(extra[name]) for name in _TLS if extra.get(name)},
    )
    return url.render_as_string(hide_password=False)


def _connection(conn_id: str) -> Connection:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as exc:
        msg = (
            f"the Airflow Connection {conn_id} is missing: create it in Airflow's UI, or set "
            f"AIRFLOW_CONN_{conn_id.upper()}. docs/own-airflow.md has examples"
        )
        raise ConfigurationError(msg) from exc


def _influx_address() -> InfluxAddress:
    """Address of InfluxDB: host, port and schema of the Connection, ``org`` in its extra.

    The token is the Connection's password, or the content of the file that ``token_file``
    in its extra names.
    """
    connection = _connection(INFLUXDB_CONN_ID)
    extra = connection.extra_dejson
    if not connection.host:
        msg = f"the Airflow Connection {INFLUXDB_CONN_ID} has no host"
        raise ConfigurationError(msg)
    schema = connection.schema or "http"
    token = connection.password
    if not token:
        path = Path(extra.get("token_file") or "")
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError as exc:
            msg = (
                f"the Airflow Connection {INFLUXDB_CONN_ID} has no password, and its token_file "
                f"{str(path)!r} can't be read: {exc.strerror}"
            )
            raise ConfigurationError(msg) from exc
    ca_file = extra.get("ca_file")
    return InfluxAddress(
        f"{schema}://{url_host(connection.host)}:{connection.port or 8086}",
        extra.get("org") or "headrace",
        token,
        Path(ca_file) if ca_file else None,
    )
