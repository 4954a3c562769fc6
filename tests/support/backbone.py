"""The servers of the integration tests: Kafka, InfluxDB and mosquitto, one of each.

They start once per test run. A test may kill them; they are restarted with their data before
the next test.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from native import servers
from native.servers import LOOPBACK
from native.stack import Programs, find_programs
from tests.support.processes import Process, free_port
from tests.support.toxic import Toxic, Toxiproxy

__all__ = ["Backbone", "make_folder"]


def make_folder() -> Path:
    """Create a folder that the servers' user can enter, too."""
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
    # Connections through toxiproxy, for the tests that need them.
    toxic_kafka_port: int = field(default_factory=free_port)
    toxic_influx_port: int = field(default_factory=free_port)
    toxic_mqtt_port: int = field(default_factory=free_port)
    influx_token: str = "the-admin-token-of-the-tests"
    influx_password: str = "the-admin-password"

    def __post_init__(self) -> None:
        found = self.programs
        controller_port, behind_port = free_port(), free_port()
        # Kafka tells clients which address to use. Clients that connect through the proxy must
        # get the proxy's address, so they have a separate listener.
        listeners = {
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.kafka_port},"
            f"HOST://{LOOPBACK}:{behind_port},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.kafka_port},"
            f"HOST://{LOOPBACK}:{self.toxic_kafka_port}",
        }
        kafka = servers.kafka(
            found.kafka,
            self.folder / "kafka",
            port=self.kafka_port,
            controller_port=controller_port,
            extra=listeners,
        )
        self._behind_proxy = {
            "kafka": (self.toxic_kafka_port, behind_port),
            "influxdb": (self.toxic_influx_port, self.influx_port),
            "mqtt": (self.toxic_mqtt_port, self.mqtt_port),
        }
        self._toxiproxy: Toxiproxy | None = None
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

    def toxic(self, server: str, to: int | None = None) -> Toxic:
        """Return the proxy of ``kafka``, ``influxdb`` or ``mqtt``, without faults.

        It leads to the port of the backbone's own server, or to another one.
        """
        if self._toxiproxy is None:
            self._toxiproxy = Toxiproxy(self.folder)
            self._toxiproxy.process.start()
        listen, own = self._behind_proxy[server]
        return self._toxiproxy.way(server, listen, to or own)

    def ensure_running(self) -> None:
        """Start every server that is not running."""
        for process in self.processes:
            if not process.alive:
                process.start()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        if self._toxiproxy is not None:
            self._toxiproxy.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
