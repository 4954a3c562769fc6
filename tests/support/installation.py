"""An installation of Headrace on the test servers, with unique names."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import urllib3
import yaml
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from prometheus_client.parser import text_string_to_metric_families
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from headrace.errors import TransientError
from headrace.models.device_time import epoch_ns
from headrace.models.window import WindowRange, rfc3339
from headrace.profile import Profile, load_profile
from headrace.settings import Settings, load_settings
from headrace.stages.alarms import evaluate_alarms
from headrace.stages.downsample import downsample
from headrace.stages.factory import make_pipeline
from headrace.stages.pipeline import Pipeline
from headrace.stages.republish import Republished, republish
from headrace.storage.influx import Influx, InfluxAddress, influx_address
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic
from headrace.storage.kafka_transaction import Publisher as TransactionalPublisher
from headrace.storage.provision import provision
from native.servers import LOOPBACK, Server
from tests.support.backbone import Backbone
from tests.support.processes import Process, free_port

__all__ = ["Installation"]

PROJECT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


@dataclass
class Installation:
    """Topics, buckets, tokens and workers of one test.

    Parameters
    ----------
    backbone
        The servers.
    folder
        Folder for the profile, the tokens and the logs.
    changes
        Entries of the profile that differ from ``generators.yaml``.
    env
        Further settings.
    """

    backbone: Backbone
    folder: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The names contain a number, unique through the id of the test process.
        self.name = f"t{os.getpid()}_{next(_numbers)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "profile.yaml"
        path.write_text(yaml.safe_dump(self._profile()))
        self.bridge_port, self.sink_port = free_port(), free_port()
        backbone = self.backbone
        self.environment = {
            "HEADRACE_PROFILE": str(path),
            "HEADRACE_STATE_DIR": str(self.folder / "state"),
            "HEADRACE_INSTALLED_AT": rfc3339(datetime.now(UTC)),
            "HEADRACE_MQTT_PORT": str(backbone.mqtt_port),
            "HEADRACE_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{backbone.kafka_port}",
            "HEADRACE_KAFKA_PARTITIONS": "3",
            "HEADRACE_INFLUX_PORT": str(backbone.influx_port),
            "HEADRACE_BRIDGE_ID": f"bridge-{self.name}",
            "HEADRACE_BRIDGE_METRICS_PORT": str(self.bridge_port),
            "HEADRACE_SINK_METRICS_PORT": str(self.sink_port),
            **self.env,
        }
        self.processes: list[Process] = []

    def _profile(self) -> dict[str, Any]:
        text = (PROJECT / "include/profiles/generators.yaml").read_text()
        content: dict[str, Any] = yaml.safe_load(text)
        content["name"] = self.name
        content["mqtt"] = {
            "topic": f"{self.name}/{{id}}",
            "status_topic": f"{self.name}/{{id}}/status",
        }
        for kind in ("topics", "buckets"):
            content[kind] = {key: f"{self.name}_{value}" for key, value in content[kind].items()}
        content.update(self.changes)
        return content

    @property
    def settings(self) -> Settings:
        return self._settings()

    def _settings(self, **more: str) -> Settings:
        overrides = {
            name.removeprefix("HEADRACE_").lower(): value
            for name, value in self.environment.items()
        }
        return load_settings(Path(os.devnull), **overrides, **more)

    @property
    def profile(self) -> Profile:
        return load_profile(self.settings.profile)

    @property
    def kafka(self) -> Kafka:
        return Kafka.from_settings(self.settings)

    def headrace(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a `headrace` command to its end."""
        return subprocess.run(
            [str(Path(sys.executable).parent / "headrace"), *arguments],
            cwd=self.folder,
            env={**_clean_environment(), **self.environment, **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def provision(self) -> None:
        """Create topics, buckets and tokens as ``headrace provision`` does."""
        settings = self._settings(
            influx_admin_token=self.backbone.influx_token,
            influx_admin_password=self.backbone.influx_password,
        )
        provision(settings, self.profile, wait=timedelta(seconds=60))

    def worker(self, name: str, *arguments: str, label: str = "", **env: str) -> Process:
        """Create a worker without starting it."""
        environment = {**self.environment, **env}
        ports = {"bridge": "HEADRACE_BRIDGE_METRICS_PORT", "sink": "HEADRACE_SINK_METRICS_PORT"}
        port = int(environment[ports[name]]) if name in ports else 0
        server = Server(
            name,
            (str(Path(sys.executable).parent / "headrace"), name, *arguments),
            self.folder,
            environment=environment,
            ready=lambda: port == 0 or self.healthy(port),
        )
        process = Process(server, self.folder / f"{label or name}.log", _clean_environment())
        self.processes.append(process)
        return process

    def healthy(self, port: int) -> bool:
        """Return whether a worker reports that it is healthy."""
        return bool(self.health(port).get("healthy"))

    def health(self, port: int) -> dict[str, Any]:
        """Return a worker's health report; empty if it does not answer."""
        url = f"http://{LOOPBACK}:{port}/healthz"
        try:
            response = urllib3.request("GET", url, timeout=2, retries=False)
        except urllib3.exceptions.HTTPError:
            return {}
        content: dict[str, Any] = response.json()
        return content

    def metric(self, port: int, name: str, **labels: str) -> float:
        """Return a worker's metric, summed over missing labels; 0 if it does not answer."""
        url = f"http://{LOOPBACK}:{port}/metrics"
        try:
            text = urllib3.request("GET", url, timeout=5, retries=False).data.decode()
        except urllib3.exceptions.HTTPError:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in (name, f"{name}_total") and labels.items() <= sample.labels.items()
        )

    def records(self, topic: str) -> list[Record]:
        """Return all committed records of a topic."""
        return list(read_topic(self.kafka, topic))

    def alter_topic(self, topic: str, **configs: str) -> None:
        """Change the configuration of a topic. Names have underscores for dots."""
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in configs.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        # Keep a reference: pending requests end with the client.
        admin = self.kafka.admin()
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that a plain consumer reads, in order of each partition."""
        return [
            json.loads(record.value) for record in self.records(self.profile.topics.downsampled)
        ]

    @contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        """Yield the stages' clients as in an Airflow task."""
        settings = self.settings
        with Influx(influx_address(settings, "airflow"), timeout=timedelta(seconds=60)) as influx:
            yield make_pipeline(settings, self.profile, influx, self.kafka)

    @contextmanager
    def admin_influx(self) -> Iterator[Influx]:
        """Yield an InfluxDB client with all rights."""
        settings = self.settings
        address = InfluxAddress(
            settings.influx_url,
            settings.influx_org,
            self.backbone.influx_token,
            settings.influx_ca_file,
        )
        with Influx(address, timeout=timedelta(seconds=60)) as influx:
            yield influx

    def store(self, *readings: tuple[str, datetime, Mapping[str, float]]) -> None:
        """Write raw readings to InfluxDB: device, time, and changed fields."""
        profile = self.profile
        usual = {"lat": 40.0, "lon": -74.0, "temperature": 190, "power": 800, "load": 40}
        lines = []
        for device, moment, values in readings:
            fields = {**usual, "fuel": 700, **values}
            text = ",".join(f"{name}={float(value)!r}" for name, value in fields.items())
            lines.append(
                f"{profile.measurement},{profile.id_field}={device} {text} {epoch_ns(moment)}"
            )
        with self.admin_influx() as influx:
            influx.write(profile.buckets.raw, "\n".join(lines).encode())

    def compute(self, windows: WindowRange, *, settled: bool = True) -> Republished:
        """Run all stages for a range."""
        with self.pipeline() as pipeline:
            downsample(windows, pipeline, settled=settled, run="test/1")
            evaluate_alarms(windows, pipeline)
            # Retry as Airflow does: another publisher may have fenced this one.
            again = Retrying(
                retry=retry_if_exception_type(TransientError),
                stop=stop_after_attempt(3),
                wait=wait_fixed(1),
                reraise=True,
            )
            return again(self.publish, windows, pipeline, run="test/1")

    def publish(self, windows: WindowRange, pipeline: Pipeline, *, run: str) -> Republished:
        """Republish and wait until consumers see the records, which is later than the commit."""
        done = republish(windows, pipeline, run=run)
        # Opening the next producer waits until the last commit is in all partitions.
        with TransactionalPublisher(pipeline.kafka, f"headrace-republish-{self.profile.name}"):
            return done

    def points(
        self, field_name: str | None = None, age: timedelta = timedelta(days=60)
    ) -> list[tuple[str, datetime, float]]:
        """Return the raw points of one field up to this age: device, time, value."""
        profile = self.profile
        flux = (
            "from(bucket: params.bucket) |> range(start: params.start, stop: params.stop)"
            " |> filter(fn: (r) => r._field == params.field) |> toFloat() |> group()"
        )
        params = {
            "bucket": profile.buckets.raw,
            "start": datetime.now(UTC) - age,
            "stop": datetime.now(UTC) + timedelta(days=1),
            "field": field_name or profile.counted_field,
        }
        with self.admin_influx() as influx:
            return [
                (row[profile.id_field], row["_time"], row["_value"])
                for row in influx.query(flux, params)
            ]

    def close(self) -> None:
        """Stop the workers that still run."""
        for process in self.processes:
            process.kill()


def _clean_environment() -> dict[str, str]:
    """Return the environment without Headrace settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
