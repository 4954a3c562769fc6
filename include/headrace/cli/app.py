"""The `headrace` command line and the common parts of its commands."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import structlog
import typer

from headrace.errors import FatalError, HeadraceError, PermanentError
from headrace.log import configure_logging
from headrace.settings import Settings, load_settings

__all__ = ["app", "main", "run_worker", "start"]

app = typer.Typer(
    name="headrace",
    help="Moves the readings of an IoT fleet from MQTT through Kafka into InfluxDB. "
    "Settings come from the environment (HEADRACE_*) and from .env; "
    "docs/reference/settings.md lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_log = structlog.get_logger("headrace")

#: Python's garbage collector runs after this many new objects. Workers keep tens of thousands
#: of readings, none of them in a cycle. With Python's default of 700, the collector took a
#: third of the bridge's time.
_GARBAGE_OBJECTS = 100_000
#: Pause before an exit. A supervisor gives up on a process that exits quickly several times.
_RESTART_PAUSE_SECONDS = 5.0
#: Time limit for other threads after the main thread has ended; then the process is killed.
_EXIT_SECONDS = 15.0
#: Exit code after Ctrl-C.
_INTERRUPTED = 130


def start() -> Settings:
    """Read the settings and configure logging; every command begins with this."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    return settings


def run_worker(name: str, run: Callable[[Settings, threading.Event], None]) -> None:
    """Run a worker until SIGTERM or SIGINT; then it drains and exits.

    Raises
    ------
    PermanentError
        Immediately, because a person must change something first.
    FatalError, TransientError
        After a pause; the supervisor then starts a new process.
    SystemExit
        With code 1, after the same pause, for an unexpected error. The log has its
        traceback.
    """
    settings = start()
    stop = threading.Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    structlog.contextvars.bind_contextvars(worker=name)
    _end_after_main_thread()
    # Imported modules stay in memory, so the garbage collector need not examine them.
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS)
    _log.info("starting")
    try:
        run(settings, stop)
    except PermanentError:
        raise
    except HeadraceError as exc:
        kind = "fatal" if isinstance(exc, FatalError) else "transient"
        _log.error("worker failed and must be restarted", kind=kind, problem=str(exc))
        stop.wait(_RESTART_PAUSE_SECONDS)
        raise
    except Exception as exc:
        _log.exception("worker failed unexpectedly and must be restarted")
        stop.wait(_RESTART_PAUSE_SECONDS)
        raise SystemExit(1) from exc
    _log.info("stopped")


def _end_after_main_thread() -> None:
    """Make sure that the process exits even if one of its threads hangs."""
    main_thread = threading.main_thread()

    def watch() -> None:
        main_thread.join()
        time.sleep(_EXIT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="exit", daemon=True).start()


def main() -> None:
    """Run the command line. An expected error prints one sentence and exits with code 1."""
    # The commands register themselves on import.
    from headrace.cli import certificate, login, provision, recovery, simulate, status, workers  # noqa: F401

    try:
        app()
    except HeadraceError as exc:
        sys.stderr.write(f"headrace: {exc}\n")
        sys.exit(1)
    except SystemExit as exc:
        if exc.code == _INTERRUPTED:
            sys.stderr.write("headrace: interrupted\n")
        raise
