"""Wrong Connections of an operator's Airflow are reported."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.orchestration.connections import kafka_config, open_pipeline

KAFKA = {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:9"}}
INFLUXDB = {"conn_type": "generic", "host": "::1", "schema": "https", "password": "a-token"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_DEFAULT", "INFLUXDB_DEFAULT"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}", raising=False)
    # Without a table of Connections in the database, Airflow reads only the environment.
    monkeypatch.setattr(
        "airflow.sdk.execution_time.context._get_connection",
        from_environment,
    )


def from_environment(conn_id: str) -> object:
    from airflow.sdk.exceptions import AirflowNotFoundException  # noqa: PLC0415
    from airflow.secrets.environment_variables import (  # noqa: PLC0415
        EnvironmentVariablesBackend,
    )

    found = EnvironmentVariablesBackend().get_connection(conn_id)
    if found is None:
        raise AirflowNotFoundException(conn_id)
    return found


def test_a_missing_connection_is_reported_with_the_next_step() -> None:
    with pytest.raises(ConfigurationError, match="kafka_default is missing: create it") as refused:
        kafka_config()
    assert "AIRFLOW_CONN_KAFKA_DEFAULT" in str(refused.value)
    assert "docs/own-airflow.md" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "influxdb_default is missing"),
        ({"host": ""}, "influxdb_default has no host"),
        ({"password": None}, "has no password, and its token_file"),
    ],
)
def test_a_wrong_connection_to_influxdb_is_reported(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str] | None, said: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(KAFKA))
    if changes is not None:
        content = json.dumps({**INFLUXDB, **changes})
        monkeypatch.setenv("AIRFLOW_CONN_INFLUXDB_DEFAULT", content)
    with (
        pytest.raises(ConfigurationError, match=said),
        open_pipeline(timedelta(seconds=1)),
    ):
        pytest.fail("nothing may be opened")


def test_connections_in_the_environment_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(KAFKA))
    monkeypatch.setenv("AIRFLOW_CONN_INFLUXDB_DEFAULT", json.dumps(INFLUXDB))
    assert kafka_config() == {"bootstrap.servers": "127.0.0.1:9"}
    with open_pipeline(timedelta(seconds=1)) as pipeline:
        assert pipeline.profile.name == "generators"
