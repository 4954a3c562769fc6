"""Prepares each server for the local stack and the tests.

Each function prepares a server's folder and returns the command to run. The caller, a supervisor
or a test, runs the process. All servers listen on loopback.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from dotenv import dotenv_values

from headrace.errors import ConfigurationError
from native.programs import HERE, Program, run_step

__all__ = [
    "LOOPBACK",
    "Server",
    "hand_over",
    "influxdb",
    "kafka",
    "mailbox",
    "make_folder",
    "mosquitto",
    "port_is_free",
    "service_user",
    "shared_environment",
    "wait_until_ready",
]

LOOPBACK = "127.0.0.1"
SERVICE_USER = "headrace"
_CONFIG = HERE / "config"
#: A KRaft node needs a cluster id. It can be constant, because no other node joins.
_CLUSTER_ID = "aGVhZHJhY2UtbG9jYWwtMQ"


@dataclass(frozen=True)
class Server:
    """A process to run.

    Parameters
    ----------
    name
        Name in logs, in status, and for the supervisor.
    command
        Command to run.
    folder
        Working directory.
    environment
        Additional environment variables.
    files
        Its configuration files. If one changes, the server must be restarted.
    ready
        Returns whether the server answers.
    user
        User to run it as; the current user if `None`.
    stop_signal
        Signal to stop it.
    stop_seconds
        Time limit for stopping, in seconds.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    ready: Callable[[], bool] = lambda: True
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 30


def service_user() -> str | None:
    """Return the user that servers run as: a dedicated one for root, else the current user.

    PostgreSQL refuses to run as root, and no server needs root.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SERVICE_USER)
    except KeyError:
        useradd = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*useradd, SERVICE_USER], check=True)
    return SERVICE_USER


def kafka(
    program: Program,
    folder: Path,
    *,
    port: int,
    controller_port: int,
    heap: str = "512m",
    extra: Mapping[str, str] | None = None,
) -> Server:
    """Return Apache Kafka with one node.

    Parameters
    ----------
    program
        Folder of the jars.
    folder
        Folder of its data.
    port, controller_port
        Ports to listen on.
    heap
        Largest heap of the JVM.
    extra
        Properties in addition to the shared ones.
    """
    user = make_folder(folder)
    properties = folder / "server.properties"
    addresses = {
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "log.dirs": str(folder / "data"),
    }
    # The variables have the same names as in the official image.
    shared = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in shared_environment("kafka").items()
    }
    values = {**shared, **addresses, **(extra or {})}
    properties.write_text("".join(f"{key}={_property(text)}\n" for key, text in values.items()))
    logging = _copy(HERE / "kafka" / "log4j2.yaml", folder)
    java = ("java", f"-Xmx{heap}", "-cp", f"{program.path}/*")
    if not (folder / "data" / "meta.properties").exists():
        tool = (*java, "kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID)
        log = folder / "format.log"
        run_step([*tool, "--config", properties], log)
        hand_over(folder, user)

    def ready() -> bool:
        try:
            admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port}", "log_level": 0})
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    return Server(
        "kafka",
        (
            *java[:2],
            f"-Xms{heap}",
            "-XX:+UseG1GC",
            f"-Dlog4j2.configurationFile={logging.as_uri()}",
            *java[2:],
            "kafka.Kafka",
            str(properties),
        ),
        folder,
        files=(properties,),
        ready=ready,
        user=user,
        stop_seconds=60,
    )


def influxdb(
    program: Program, folder: Path, *, port: int, extra: Mapping[str, str] | None = None
) -> Server:
    """Return InfluxDB 2.7. ``extra`` has ``INFLUXD_*`` settings besides the shared ones."""
    user = make_folder(folder)
    url = f"http://{LOOPBACK}:{port}/health"
    return Server(
        "influxdb",
        (str(program.path),),
        folder,
        environment={
            **program.environment,
            **shared_environment("influxdb"),
            "INFLUXD_HTTP_BIND_ADDRESS": f"{LOOPBACK}:{port}",
            "INFLUXD_BOLT_PATH": str(folder / "influxd.bolt"),
            "INFLUXD_SQLITE_PATH": str(folder / "influxd.sqlite"),
            "INFLUXD_ENGINE_PATH": str(folder / "engine"),
            **(extra or {}),
        },
        ready=lambda: _answers(url),
        user=user,
    )


def mosquitto(program: Program, folder: Path, *, port: int, lines: tuple[str, ...] = ()) -> Server:
    """Return Mosquitto 2. ``lines`` are added to its configuration."""
    user = make_folder(folder)
    config = folder / "mosquitto.conf"
    config.write_text(
        "\n".join(
            (
                (_CONFIG / "mosquitto.conf").read_text(),
                f"listener {port} {LOOPBACK}",
                f"persistence_location {folder}/",
                *(lines or ("allow_anonymous true",)),
                "",
            )
        )
    )
    return Server(
        "mosquitto",
        (str(program.path), "-c", str(config)),
        folder,
        environment=program.environment,
        files=(config,),
        ready=lambda: _listens(port),
        user=user,
    )


def mailbox(program: Program, folder: Path, *, smtp_port: int, web_port: int) -> Server:
    """Return a mail server that keeps received mails and shows them on a page."""
    folder.mkdir(parents=True, exist_ok=True)
    return Server(
        "mailbox",
        (
            "node",
            str(program.path),
            "--silent",
            "--ip",
            LOOPBACK,
            "--smtp",
            str(smtp_port),
            "--web",
            str(web_port),
            "--mail-directory",
            str(folder),
        ),
        folder,
        ready=lambda: _answers(f"http://{LOOPBACK}:{web_port}/healthz"),
    )


def wait_until_ready(server: Server, alive: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a server answers.

    Raises
    ------
    ConfigurationError
        If it exits or does not answer in time.
    """
    deadline = time.monotonic() + seconds
    while not server.ready():
        if not alive():
            msg = f"{server.name} has died"
            raise ConfigurationError(msg)
        if time.monotonic() > deadline:
            msg = f"{server.name} does not answer after {seconds:.0f} s"
            raise ConfigurationError(msg)
        time.sleep(0.1)


def shared_environment(name: str) -> dict[str, str]:
    """Return the part of a server's configuration that `make up` and Docker share."""
    values = dotenv_values(_CONFIG / f"{name}.env", interpolate=False)
    return {variable: value or "" for variable, value in values.items()}


def _property(value: str) -> str:
    """Escape a value for a properties file, which Java reads as Latin-1."""
    return (
        value.replace("\\", "\\\\")
        .encode("ascii", "backslashreplace")
        .decode()
        .replace("\\x", "\\u00")
    )


def _copy(source: Path, folder: Path) -> Path:
    """Copy a file of the checkout to a folder that the server's user can read."""
    target = folder / source.name
    target.write_bytes(source.read_bytes())
    target.chmod(0o644)
    return target


def make_folder(folder: Path) -> str | None:
    """Create a server's folder, owned by the user that the server runs as."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    user = service_user()
    hand_over(folder, user)
    return user


def hand_over(folder: Path, user: str | None) -> None:
    """Make a user the owner of a folder and its content."""
    if user is None:
        return
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user, user)


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status == 200  # noqa: PLR2004
    except urllib3.exceptions.HTTPError:
        return False


def port_is_free(port: int) -> bool:
    """Return whether no program listens on this port of the loopback address."""
    with socket.socket() as sock:
        # As servers do, so that closing connections do not count.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((LOOPBACK, port)) == 0
