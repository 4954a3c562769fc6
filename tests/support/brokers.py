"""Other brokers than mosquitto, built from Go and Maven packages into the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from headrace.storage.mqtt import MqttAddress
from headrace.storage.mqtt_probe import accepts_connections
from native.programs import cache_dir, digest, exclusively, need, pinned_version, run_step
from native.servers import LOOPBACK, Server
from tests.support.processes import Process, free_port

__all__ = ["BROKERS", "hivemq", "mochi"]

_HERE = Path(__file__).parent

_HIVEMQ_CONFIGURATION = """<?xml version="1.0" encoding="UTF-8"?>
<hivemq>
  <listeners>
    <tcp-listener><port>{port}</port><bind-address>{host}</bind-address></tcp-listener>
  </listeners>
  <mqtt><queued-messages><max-queue-size>100000</max-queue-size></queued-messages></mqtt>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""


def mochi(folder: Path, *options: str) -> tuple[Process, int]:
    """Return mochi-mqtt with sessions in a file; ``options`` are those of ``mochi/main.go``."""
    sources = [_HERE / "mochi" / name for name in ("main.go", "go.mod", "go.sum")]
    version = pinned_version(sources[1], r"mochi-mqtt/server/v2 v([\d.]+)")
    program = cache_dir() / f"mochi-{version}-{digest(sources)}"
    with exclusively():
        if not program.exists():
            need("go", "Go 1.21 or newer", "see go.dev")
            partial = program.with_suffix(".partial")
            run_step(
                ["go", "build", "-o", partial, "."],
                cache_dir() / "log" / "mochi.log",
                cwd=_HERE / "mochi",
                env={"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
            )
            partial.rename(program)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [str(program), "-listen", f"{LOOPBACK}:{port}", "-store", str(folder / "store")]
    return _process("mochi", (*command, *options), folder, port), port


def hivemq(folder: Path) -> tuple[Process, int]:
    """Return HiveMQ Community Edition with a longer queue than by default."""
    sources = [_HERE / "hivemq" / name for name in ("Broker.java", "pom.xml")]
    version = pinned_version(sources[1], r"<version>(\d{4}\.[\d.]+)</version>")
    classes = cache_dir() / f"hivemq-{version}-{digest(sources)}"
    with exclusively():
        if not classes.exists():
            need("mvn", "Maven", "apt-get install maven")
            need("javac", "a Java 17 JDK", "apt-get install openjdk-17-jdk-headless")
            partial = classes.with_name(f"{classes.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            copy = ["mvn", "--quiet", "--batch-mode", "--file", sources[1]]
            copy += ["dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
            run_step(copy, cache_dir() / "log" / "hivemq.log")
            compiled = ["javac", "-cp", f"{partial}/*", "-d", partial, sources[0]]
            run_step(compiled, cache_dir() / "log" / "hivemq-javac.log")
            partial.rename(classes)
    port = free_port()
    for name in ("conf", "data", "extensions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    configuration = _HIVEMQ_CONFIGURATION.format(port=port, host=LOOPBACK)
    (folder / "conf" / "config.xml").write_text(configuration)
    java = ("java", "-Xmx384m", "-cp", f"{classes}{os.pathsep}{classes}/*")
    return _process("hivemq", (*java, "Broker", str(folder)), folder, port), port


#: Functions that create the brokers, by name.
BROKERS: dict[str, Callable[[Path], tuple[Process, int]]] = {"mochi": mochi, "hivemq": hivemq}


def _process(name: str, command: tuple[str, ...], folder: Path, port: int) -> Process:
    address = MqttAddress(LOOPBACK, port)
    server = Server(name, command, folder, ready=partial(accepts_connections, address))
    return Process(server, folder / f"{name}.log")
