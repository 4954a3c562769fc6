"""The servers of the integration tests: Kafka, InfluxDB and mosquitto, one of each.

They are started once a test run. A test may kill them as it likes; before the next test
they are started again, with what they had.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from native import servers
from native.stack import Programs, find_programs
from tests.support.processes import Process, free_port

__all__ = ["Backbone", "make_folder"]


def make_folder() -> Path:
    """A folder that the servers' own user can enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-test-"))
    folder.chmod(0o755)
    return folder


@dataclass
class Backbone:
    """Running servers on free ports."""

    folder: Path = field(default_factory=make_folder)
    programs: Programs = field(default_factory=lambda: find_programs(print))
    mqtt_port: int = field(default_factory=free_port)
    kafka_port: int = field(default_factory=free_port)
    influx_port: int = field(default_factory=free_port)
    influx_token: str = "the-admin-token-of-the-tests"
    influx_password: str = "the-admin-password"

    def __post_init__(self) -> None:
        found = self.programs
        kafka = servers.kafka(
            found.kafka,
            self.folder / "kafka",
            port=self.kafka_port,
            controller_port=free_port(),
        )
        influxdb = servers.influxdb(found.influxd, self.folder / "influxdb", port=self.influx_port)
        mosquitto = servers.mosquitto(
            found.mosquitto, self.folder / "mosquitto", port=self.mqtt_port
        )
        log = self.folder / "log"
        self.kafka = Process(kafka, log / "kafka.log")
        self.influxdb = Process(influxdb, log / "influxdb.log")
        self.mosquitto = Process(mosquitto, log / "mosquitto.log")

    @property
    def processes(self) -> tuple[Process, ...]:
        return self.kafka, self.influxdb, self.mosquitto

    def ensure_running(self) -> None:
        """Start what does not run."""
        for process in self.processes:
            if not process.alive:
                process.start()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
