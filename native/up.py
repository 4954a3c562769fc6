"""Starts the local stack step by step and shows the progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from headrace.errors import ConfigurationError
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.profile import Profile, load_profile
from headrace.settings import BundledServer
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic
from headrace.storage.records import SkippedRecords, own_records
from native.airflow import init_commands
from native.bundled import local_kafka_port
from native.dotenv import ENV_FILE, write_env
from native.outside import outside_ports
from native.panel import server_rows
from native.programs import run_step
from native.servers import Server, port_is_free, wait_until_ready
from native.stack import Stack, find_programs, load_stack
from native.supervision import Supervisor

__all__ = ["bring_up"]

_console = Console()
_SHOWN_ROWS = 5
_OWN = "HEADRACE_OWN_SERVERS"
#: Time limit for the first window. A run starts at the end of a minute.
_FIRST_WINDOW_SECONDS = 240.0


def bring_up() -> None:
    """Start stopped processes in order and wait until the first window is published.

    Raises
    ------
    ConfigurationError
        If a program is missing, a port is in use, or a process exits. The message names it and
        its log.
    """
    with _step("settings") as tell:
        tell("wrote .env with fresh secrets" if write_env() else "from .env")
        stack = load_stack(ENV_FILE)
    with _step("programs") as tell:
        found = find_programs(tell, stack.bundled)
    supervisor = Supervisor(stack.folder)
    servers = stack.servers(found)
    workers, airflow, fleet = stack.workers(), stack.airflow(), stack.fleet()
    everything = [*servers, *workers, *airflow, *fleet]
    running = {name for name, state in supervisor.states().items() if state == "RUNNING"}
    _check_ports(stack, {server.name for server in everything} - running)
    supervisor.configure(everything)
    for server in servers:
        _start(server, supervisor)
    _provision(stack)
    for worker in workers:
        _start(worker, supervisor)
    if not supervisor.is_running(airflow[0].name):
        _prepare_airflow(stack)
    for process in airflow:
        # The first start reads many files from disk.
        _start(process, supervisor, seconds=180)
    for process in fleet:
        _start(process, supervisor)
    if fleet:
        _await_first_window(stack)
    _show(stack)


def _start(server: Server, supervisor: Supervisor, seconds: float = 60.0) -> None:
    with _step(server.name) as tell:
        if supervisor.is_running(server.name) and server.ready():
            tell("runs already")
            return
        supervisor.start(server.name)
        try:
            wait_until_ready(server, lambda: supervisor.is_running(server.name), seconds)
        except ConfigurationError as exc:
            msg = f"{exc}, see {supervisor.log_of(server.name)}"
            raise ConfigurationError(msg) from exc


def _check_ports(stack: Stack, starting: set[str]) -> None:
    """Check that no other program uses a port, before anything starts."""
    settings = stack.settings
    has_bootstrap = "kafka_bootstrap" in settings.model_fields_set
    kafka_setting = "HEADRACE_KAFKA_BOOTSTRAP" if has_bootstrap else "HEADRACE_KAFKA_PORT"
    needed = {
        "mosquitto": {
            "HEADRACE_MQTT_PORT": settings.mqtt_port,
            **outside_ports(settings, "HEADRACE_MQTT_LISTEN", "HEADRACE_MQTT_WEBSOCKET_LISTEN"),
        },
        "kafka": {
            kafka_setting: local_kafka_port(settings) or 0,
            "HEADRACE_KAFKA_CONTROLLER_PORT": settings.kafka_controller_port,
            **outside_ports(settings, "HEADRACE_KAFKA_LISTEN"),
        },
        "influxdb": {"HEADRACE_INFLUX_PORT": settings.influx_port},
        "postgres": {"HEADRACE_POSTGRES_PORT": settings.postgres_port},
        "mailbox": {
            "HEADRACE_SMTP_PORT": settings.smtp_port,
            "HEADRACE_MAILBOX_PORT": settings.mailbox_port,
        },
        "bridge": {"HEADRACE_BRIDGE_METRICS_PORT": settings.bridge_metrics_port},
        "sink": {"HEADRACE_SINK_METRICS_PORT": settings.sink_metrics_port},
        "airflow-api-server": {"HEADRACE_AIRFLOW_PORT": settings.airflow_port},
    }
    given: dict[int, str] = {}
    for name in sorted(starting & needed.keys()):
        for setting, port in needed[name].items():
            if port in given:
                msg = f"{setting} and {given[port]} are both {port}: give each a different port"
                raise ConfigurationError(msg)
            given[port] = setting
    for name in sorted(starting & needed.keys()):
        for setting, port in needed[name].items():
            if not port_is_free(port):
                msg = (
                    f"port {port}, which {name} needs, is in use by another program. Stop that "
                    f"one, or set {setting} in .env to another"
                )
                if name in set(BundledServer):
                    msg += f". If it is a {name} of your own to use, set {_OWN}={name}"
                raise ConfigurationError(msg)


def _provision(stack: Stack) -> None:
    with _step("topics, buckets, tokens"):
        log = stack.log_folder / "provision.log"
        command: list[str | Path] = [Path(sys.executable).parent / "headrace", "provision"]
        run_step(command, log, env={"HEADRACE_STATE_DIR": str(stack.folder)})


def _prepare_airflow(stack: Stack) -> None:
    with _step("Airflow's database"):
        for command in init_commands():
            log = stack.log_folder / f"airflow-{command[1]}.log"
            run_step(list(command), log, cwd=stack.folder, env=stack.airflow_environment)


def _await_first_window(stack: Stack) -> None:
    with _step("first window") as tell:
        tell("waiting for the minute to end and its window to be published")
        deadline = time.monotonic() + _FIRST_WINDOW_SECONDS
        begun = datetime.now(UTC)
        while not _rows_of(stack, since=begun):
            if time.monotonic() > deadline:
                msg = (
                    "no window is published yet: `make status` shows problems, "
                    f"and the logs are in {stack.log_folder}"
                )
                raise ConfigurationError(msg)
            time.sleep(1)
        tell("rows are on their topic")


def _rows_of(stack: Stack, since: datetime) -> list[dict[str, object]]:
    """Return the rows published since a time."""
    settings = stack.settings
    topic = load_profile(settings.profile).topics.downsampled
    newer = int(since.timestamp() * 1000)
    records = read_topic(Kafka.from_settings(settings), topic, since=since)
    recent = (record for record in records if record.timestamp_ms >= newer)
    return list(own_records(recent, _row, SkippedRecords()))


def _row(record: Record) -> dict[str, object]:
    try:
        row = msgspec.json.decode(record.value, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ForeignRecordError(ForeignReason.NOT_JSON, str(exc)) from exc
    if "window_start" not in row:
        raise ForeignRecordError(ForeignReason.MISSING_FIELD, "window_start")
    return row


def _show(stack: Stack) -> None:
    settings = stack.settings
    password = settings.airflow_password
    where = Table.grid(padding=(0, 2))
    where.add_row(
        "Airflow",
        settings.public_airflow_url,
        escape(
            f"login {settings.airflow_user} / {password.get_secret_value() if password else ''}"
        ),
    )
    for name, address, purpose in server_rows(settings):
        where.add_row(name, escape(address), escape(purpose))
    where.add_row("Next", "make status", "make logs, make down, make help")
    _console.print(Panel(where, title="Headrace is up", expand=False))
    recent = _rows_of(stack, since=datetime.now(UTC) - timedelta(minutes=5))
    if not recent:
        return
    newest = max(str(row["window_start"]) for row in recent)
    shown = [row for row in recent if row["window_start"] == newest][:_SHOWN_ROWS]
    names = _telling_columns(load_profile(settings.profile))
    # Narrow enough for any terminal, so that no column is truncated.
    rows = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    rows.title = f"The newest rows, window {newest}"
    for name in names:
        rows.add_column(name)
    for row in shown:
        rows.add_row(*(Text(str(row.get(name, ""))) for name in names))
    _console.print(rows)


def _telling_columns(profile: Profile) -> list[str]:
    """Return columns that fit on a screen: the id, the levels, and their values."""
    measured = [str(rule.params.get("field")) for rule in profile.alarms]
    return [
        profile.id_field,
        *(rule.writes for rule in profile.alarms),
        *(name for name in profile.fields if name in measured),
        "readings",
    ]


@contextmanager
def _step(name: str) -> Iterator[Callable[[str], None]]:
    """Show one step while it runs, and its duration."""
    begun = time.monotonic()
    said: list[str] = []
    if not _console.is_terminal:

        def tell_line(what: str) -> None:
            said.append(what)
            _console.print(f"  {name}: {what}", highlight=False, markup=False)

        yield tell_line
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=_console, transient=True) as progress:
            task = progress.add_task(name)

            def tell_spinner(what: str) -> None:
                said.append(what)
                progress.update(task, description=escape(f"{name}: {what}"))

            yield tell_spinner
    note = f" ({said[-1]})" if said and _console.is_terminal else ""
    took = time.monotonic() - begun
    _console.print(f"[green]ok[/] {name:22} {took:6.1f} s{escape(note)}", highlight=False)
