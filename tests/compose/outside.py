"""The servers of a stack, as programs on this machine see them: through the published ports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import urllib3
from confluent_kafka import Consumer, KafkaError
from dotenv import dotenv_values

from headrace.models.window import rfc3339
from headrace.settings import Settings, load_settings
from headrace.storage.influx import Influx, InfluxAddress
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic
from native.servers import LOOPBACK
from tests.support.processes import wait_for

__all__ = ["Outside"]


class Outside:
    """Clients of the servers, with the ports and passwords of an ``.env``."""

    def __init__(self, env_file: Path) -> None:
        self.env_file = env_file
        self._token: str | None = None

    @property
    def env(self) -> dict[str, str]:
        return {name: value or "" for name, value in dotenv_values(self.env_file).items()}

    @property
    def settings(self) -> Settings:
        """The settings of a program outside the containers."""
        return load_settings(self.env_file)

    def port(self, name: str) -> int:
        return int(self.env[f"HEADRACE_{name}_PORT"])

    def http(self, port: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        url = f"http://{LOOPBACK}:{self.port(port)}{path}"
        method = options.pop("method", "GET")
        return urllib3.request(method, url, timeout=20, retries=False, **options)

    def airflow(
        self, method: str, path: str, body: Any = None, *, api: str = "/api/v2"
    ) -> urllib3.BaseHTTPResponse:
        """Call Airflow as the user in ``.env``."""
        if self._token is None:
            login = {
                "username": self.env["HEADRACE_AIRFLOW_USER"],
                "password": self.env["HEADRACE_AIRFLOW_PASSWORD"],
            }
            answer = self.http("AIRFLOW", "/auth/token", method="POST", json=login)
            assert answer.status in (200, 201), answer.data
            self._token = answer.json()["access_token"]
        return self.http(
            "AIRFLOW",
            f"{api}{path}",
            method=method,
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
        )

    def subjects(self) -> list[str]:
        """Subjects of the mails in the mailbox."""
        return [mail["subject"] for mail in self.mails()]

    def mails(self) -> list[dict[str, Any]]:
        """What the mailbox has."""
        found: list[dict[str, Any]] = self.http("MAILBOX", "/email").json()
        return found

    @property
    def kafka(self) -> Kafka:
        return Kafka.from_settings(self.settings)

    def points(self, field: str) -> list[tuple[str, datetime, float]]:
        """Raw points of one field of the last hour in InfluxDB: device, time, value."""
        flux = (
            "from(bucket: params.bucket) |> range(start: params.start)"
            " |> filter(fn: (r) => r._field == params.field) |> toFloat() |> group()"
        )
        settings = self.settings
        address = InfluxAddress(
            settings.influx_url, settings.influx_org, self.env["HEADRACE_INFLUX_ADMIN_TOKEN"], None
        )
        start = datetime.now(UTC) - timedelta(hours=1)
        params = {"bucket": "kafka_raw", "start": start, "field": field}
        with Influx(address, timeout=timedelta(seconds=60)) as influx:
            return [
                (row["generatorID"], row["_time"], row["_value"])
                for row in influx.query(flux, params)
            ]

    def records(self, topic: str) -> list[Record]:
        """All committed records of a topic."""
        return list(read_topic(self.kafka, topic))

    def rows(self) -> list[dict[str, Any]]:
        """Everything that a new `read_committed` consumer gets of the topic of rows."""
        consumer = Consumer(
            {
                "bootstrap.servers": f"{LOOPBACK}:{self.port('KAFKA')}",
                "group.id": f"test-{time.monotonic_ns()}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            return list(_consume(consumer, "kafka_downsampled"))
        finally:
            consumer.close()

    def heal(self, start: datetime, stop: datetime) -> str:
        """Compute a range with the reconcile DAG, as in Airflow's UI; returns the run's state."""
        body = {
            "logical_date": None,
            "conf": {"start": rfc3339(start), "stop": rfc3339(stop)},
        }
        path = "/dags/generators_reconcile/dagRuns"
        answer = self.airflow("POST", path, body)
        assert answer.status == 200, answer.data
        path = f"{path}/{answer.json()['dag_run_id']}"

        def state() -> str:
            found = str(self.airflow("GET", path).json()["state"])
            return found if found in ("success", "failed") else ""

        return wait_for(state, 180, 1)


def _consume(consumer: Consumer, topic: str) -> Iterator[dict[str, Any]]:
    partitions = len(consumer.list_topics(topic, 30).topics[topic].partitions)
    consumer.subscribe([topic])
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"the end of {topic} is not reached"
        message = consumer.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is None:
            yield json.loads(message.value())
        elif error.code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
        else:
            raise AssertionError(error.str())
