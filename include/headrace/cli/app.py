"""The commands, and what they have in common."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import structlog
import typer

from headrace.errors import HeadraceError
from headrace.log import configure_logging
from headrace.settings import Settings, load_settings

__all__ = ["app", "main", "run_worker", "start"]

app = typer.Typer(
    name="headrace",
    help="An IoT fleet's readings, from MQTT through Kafka into InfluxDB. "
    "Settings come from the environment (HEADRACE_*) and from .env; docs/settings.md lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_log = structlog.get_logger("headrace")

#: So many objects more than before, and Python looks for cycles. Workers hold tens of
#: thousands of readings that are in no cycle; looking through them every 700 objects, as
#: Python does by itself, took a third of the bridge's time.
_GARBAGE_OBJECTS = 100_000


def start() -> Settings:
    """Read the settings and set up logging; every command begins so."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    return settings


def run_worker(name: str, run: Callable[[Settings, threading.Event], None]) -> None:
    """Run a worker until SIGTERM or SIGINT, which it answers by draining."""
    settings = start()
    stop = threading.Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    structlog.contextvars.bind_contextvars(worker=name)
    # What has been imported stays: it need never be looked through.
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS)
    _log.info("starting")
    run(settings, stop)
    _log.info("stopped")


def main() -> None:
    """Run the command line; errors of ours become one sentence and exit code 1."""
    # The commands register themselves when they are imported.
    from headrace.cli import login, provision, recovery, simulate, status, workers  # noqa: F401

    try:
        app()
    except HeadraceError as exc:
        sys.stderr.write(f"headrace: {exc}\n")
        sys.exit(1)
