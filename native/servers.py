"""How the local stack and the tests set up and start each server.

A function prepares a server's folder and returns what to run; who keeps the process
(supervisor, or a test) is not decided here. Everything listens on loopback.
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

from headrace.errors import ConfigurationError
from native.programs import HERE, Program, run_step

__all__ = [
    "LOOPBACK",
    "Server",
    "influxdb",
    "kafka",
    "mailbox",
    "mosquitto",
    "port_is_free",
    "postgres",
    "service_user",
    "wait_until_ready",
]

LOOPBACK = "127.0.0.1"
SERVICE_USER = "headrace"
_CONFIG = HERE / "config"
#: A KRaft node needs a cluster id. No other node joins this one, so the id can be constant.
_CLUSTER_ID = "aGVhZHJhY2UtbG9jYWwtMQ"


@dataclass(frozen=True)
class Server:
    """A process to run.

    Parameters
    ----------
    name
        Its name in logs, in status, and for the supervisor.
    command
        What to run.
    folder
        Where to run it.
    environment
        On top of the environment that is there.
    files
        Its configuration: when it changes, the server has to be started anew.
    ready
        Whether it answers.
    user
        Whom to run it as; the current user if `None`.
    stop_signal
        What tells it to stop.
    stop_seconds
        How long it may take to do so.
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
    """Apache Kafka, one node.

    Parameters
    ----------
    program
        Folder of the jars.
    folder
        For its data.
    port, controller_port
        To listen on.
    heap
        Largest heap of the JVM.
    extra
        Properties on top of the shared ones.
    """
    user = _make_folder(folder)
    properties = folder / "server.properties"
    addresses = {
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "log.dirs": str(folder / "data"),
    }
    lines = [f"{key}={_property(value)}" for key, value in {**addresses, **(extra or {})}.items()]
    shared = (_CONFIG / "kafka.properties").read_text()
    properties.write_text(f"{shared}\n" + "\n".join(lines) + "\n")
    logging = _copy(HERE / "kafka" / "log4j2.yaml", folder)
    java = ("java", f"-Xmx{heap}", "-cp", f"{program.path}/*")
    if not (folder / "data" / "meta.properties").exists():
        tool = (*java, "kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID)
        log = folder / "format.log"
        run_step([*tool, "--config", properties], log)
        _hand_over(folder, user)

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
    """InfluxDB 2.7. ``extra`` holds ``INFLUXD_*`` settings on top of the shared ones."""
    user = _make_folder(folder)
    url = f"http://{LOOPBACK}:{port}/health"
    config = _copy(_CONFIG / "influxdb.yaml", folder)
    return Server(
        "influxdb",
        (str(program.path),),
        folder,
        environment={
            **program.environment,
            "INFLUXD_CONFIG_PATH": str(config),
            "INFLUXD_HTTP_BIND_ADDRESS": f"{LOOPBACK}:{port}",
            "INFLUXD_BOLT_PATH": str(folder / "influxd.bolt"),
            "INFLUXD_SQLITE_PATH": str(folder / "influxd.sqlite"),
            "INFLUXD_ENGINE_PATH": str(folder / "engine"),
            **(extra or {}),
        },
        files=(config,),
        ready=lambda: _answers(url),
        user=user,
    )


def mosquitto(program: Program, folder: Path, *, port: int, lines: tuple[str, ...] = ()) -> Server:
    """Mosquitto 2. ``lines`` are added to its configuration."""
    user = _make_folder(folder)
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


def postgres(program: Program, folder: Path, *, port: int, password: str) -> Server:
    """PostgreSQL with an empty database ``airflow`` and its owner of the same name."""
    user = _make_folder(folder)
    data = folder / "data"
    program = _of_the_data(program, data)
    _remove_stale_pid(data)
    env = {**os.environ, **program.environment}
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        _hand_over(folder, user)
        initdb = [
            str(program.path / "initdb"),
            f"--pgdata={data}",
            "--username=airflow",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        single = [str(program.path / "postgres"), "--single", "-D", str(data), "postgres"]
        try:
            for command, text in ((initdb, None), (single, "CREATE DATABASE airflow;\n")):
                done = subprocess.run(
                    command,
                    input=text,
                    text=True,
                    env=env,
                    cwd=folder,
                    user=user,
                    group=user,
                    capture_output=True,
                    check=False,
                )
                if done.returncode:
                    shutil.rmtree(data, ignore_errors=True)
                    msg = f"{Path(command[0]).name} failed: {done.stderr.strip()}"
                    raise ConfigurationError(msg)
        finally:
            secret.unlink()

    def ready() -> bool:
        asked = [str(program.path / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port)]
        return subprocess.run(asked, env=env, check=False).returncode == 0

    return Server(
        "postgres",
        (
            str(program.path / "postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            "-c",
            f"listen_addresses={LOOPBACK}",
            "-c",
            # No socket: its path could be too long, and all clients use TCP.
            "unix_socket_directories=",
        ),
        folder,
        environment=program.environment,
        ready=ready,
        user=user,
        # On SIGTERM it would wait until the last client disconnects.
        stop_signal="INT",
    )


def mailbox(program: Program, folder: Path, *, smtp_port: int, web_port: int) -> Server:
    """A mail server that keeps received mails and shows them on a page."""
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
        If it dies, or does not answer in time.
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


def _of_the_data(program: Program, data: Path) -> Program:
    """Return the PostgreSQL of the version that wrote the data; other versions can't read it.

    Raises
    ------
    ConfigurationError
        If that version is not installed.
    """
    major = program.path.parent.name
    version = data / "PG_VERSION"
    if not major.isdigit() or not version.exists():
        return program
    written_by = version.read_text().strip()
    if written_by in ("", major):
        return program
    other = program.path.parents[1] / written_by / "bin"
    if (other / "postgres").exists():
        return Program(other, program.environment)
    msg = (
        f"the data in {data} were written by PostgreSQL {written_by}, which PostgreSQL {major} "
        f"can't read. Install postgresql-{written_by}, or run `make reset` to delete all data"
    )
    raise ConfigurationError(msg)


def _remove_stale_pid(data: Path) -> None:
    """Remove the lock of a killed PostgreSQL whose process id now belongs to another process."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
        owner = Path(f"/proc/{pid}/cwd").resolve(strict=True)
    except (OSError, ValueError, IndexError):
        # PostgreSQL removes a lock without a process itself. A lock that is being written is
        # complete in a moment.
        return
    if owner != data.resolve():
        lock.unlink(missing_ok=True)


def _make_folder(folder: Path) -> str | None:
    """Create a server's folder, owned by the user that the server runs as."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    user = service_user()
    _hand_over(folder, user)
    return user


def _hand_over(folder: Path, user: str | None) -> None:
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
        # Servers set this, too: connections that are closing do not count.
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
