"""The peers: pinned versions, built with only the used parts, and configured for speed.

Each configuration follows the peer's documentation and has the guarantees nearest to ours: a
persistent session, an idempotent producer, and acknowledgements after Kafka's answer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from native.programs import (
    Progress,
    cache_dir,
    digest,
    exclusively,
    need,
    pinned_version,
    run_step,
)
from native.servers import Server
from tests.support.installation import Installation
from tests.support.processes import Process

__all__ = ["BRIDGES", "SINK", "TELEGRAF_VERSION", "Peer", "benthos_version", "find_peers"]

HERE = Path(__file__).resolve().parent

TELEGRAF_VERSION = "1.37.2"
_TELEGRAF_PARTS = (
    "inputs.mqtt_consumer",
    "inputs.kafka_consumer",
    "outputs.kafka",
    "outputs.influxdb_v2",
    "parsers.json",
    "parsers.value",
    "serializers.json",
    "serializers.template",
)


@dataclass(frozen=True)
class Peer:
    """A peer with one configuration.

    Parameters
    ----------
    name
        Name in the results.
    config
        File in this folder; ``${NAME}`` in it comes from the environment.
    find
        Finds the program.
    arguments
        Arguments before the configuration file.
    """

    name: str
    config: str
    find: Callable[[Progress], Path]
    arguments: tuple[str, ...]

    def process(self, installation: Installation) -> Process:
        """Return the peer for an installation's topics and bucket, not started yet."""
        backbone = installation.backbone
        program = self.find(print)
        folder = installation.folder
        server = Server(
            self.name,
            (str(program), *self.arguments, str(HERE / self.config)),
            folder,
            environment={
                "MQTT_PORT": str(backbone.mqtt_port),
                "KAFKA_PORT": str(backbone.kafka_port),
                "INFLUX_PORT": str(backbone.influx_port),
                "INFLUX_TOKEN": backbone.influx_token,
                "PREFIX": installation.name,
                "RAW_TOPIC": installation.profile.topics.raw,
                "RAW_BUCKET": installation.profile.buckets.raw,
            },
        )
        process = Process(server, folder / f"{self.name}.log")
        installation.processes.append(process)
        return process


def _telegraf(progress: Progress) -> Path:
    """Return the path of Telegraf, built from its Go module the first time."""
    tags = ",".join(("custom", *_TELEGRAF_PARTS))
    path = (
        cache_dir()
        / f"telegraf-{TELEGRAF_VERSION}-{hashlib.sha256(tags.encode()).hexdigest()[:12]}"
    )
    module = f"github.com/influxdata/telegraf/cmd/telegraf@v{TELEGRAF_VERSION}"
    return _built(path, ["-tags", tags, module], progress)


def benthos_version() -> str:
    """Return the version of Benthos."""
    return pinned_version(HERE / "benthos" / "go.mod", r"benthos/v4 v([\d.]+)")


def _benthos(progress: Progress) -> Path:
    """Return the path of Benthos, built from its Go module the first time."""
    sources = [HERE / "benthos" / name for name in ("main.go", "go.mod", "go.sum")]
    path = cache_dir() / f"benthos-{benthos_version()}-{digest(sources)}"
    return _built(path, ["."], progress)


def _built(path: Path, arguments: list[str], progress: Progress) -> Path:
    name, version, _ = path.name.split("-")
    with exclusively():
        if not path.exists():
            progress(f"building {name.capitalize()} {version}")
            need("go", "Go 1.24 or newer", "see go.dev")
            partial = path.with_name(f"{path.name}.partial")
            env = {**os.environ, "GOBIN": str(partial), "GOTOOLCHAIN": "local"}
            log = cache_dir() / "log" / f"{name}.log"
            run_step(["go", "install", *arguments], log, cwd=HERE / "benthos", env=env)
            (partial / name).rename(path)
            partial.rmdir()
    return path


_TELEGRAF_ARGUMENTS = ("--quiet", "--config")

#: MQTT to Kafka, acknowledged after delivery.
BRIDGES = (
    Peer("telegraf-json", "telegraf-json.conf", _telegraf, _TELEGRAF_ARGUMENTS),
    Peer("telegraf-value", "telegraf-value.conf", _telegraf, _TELEGRAF_ARGUMENTS),
    Peer("benthos", "benthos.yaml", _benthos, ("-c",)),
)

#: Kafka to InfluxDB.
SINK = Peer("telegraf-sink", "telegraf-sink.conf", _telegraf, _TELEGRAF_ARGUMENTS)


def find_peers(progress: Progress) -> None:
    """Find the peers' programs; build missing ones."""
    for peer in (*BRIDGES, SINK):
        peer.find(progress)
