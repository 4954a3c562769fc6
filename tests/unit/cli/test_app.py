"""The end of a worker process: exit code, log, and the pause before a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from headrace.cli import app as module
from headrace.cli.app import run_worker
from headrace.errors import (
    ConfigurationError,
    FatalError,
    HeadraceError,
    NotRetiredError,
    ServerUnavailableError,
)
from headrace.settings import Settings

Pauses = list[float]


@pytest.fixture(autouse=True)
def own_handlers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Do not change signals, logging and the garbage collector of the test run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "configure_logging", lambda *_: None)
    monkeypatch.setattr(module, "_end_after_main_thread", lambda: None)
    monkeypatch.setattr(module.gc, "freeze", lambda: None)
    monkeypatch.setattr(module.gc, "set_threshold", lambda *_: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Pauses that a worker made before it ended. The test does not wait for them."""
    made: Pauses = []

    class EventThatDoesNotWait(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            made.append(timeout)
            return False

    monkeypatch.setattr(module, "threading", SimpleNamespace(Event=EventThatDoesNotWait))
    return made


def failing(error: Exception) -> object:
    def run(settings: Settings, stop: threading.Event) -> None:
        del settings, stop
        raise error

    return run


def test_a_worker_that_ends_normally_does_not_pause(pauses: Pauses) -> None:
    run_worker("bridge", lambda _, __: None)
    assert pauses == []


@pytest.mark.parametrize("error", [ConfigurationError("a setting"), NotRetiredError("interrupted")])
def test_a_configuration_error_ends_the_process_without_a_pause(
    error: HeadraceError, pauses: Pauses
) -> None:
    with pytest.raises(type(error)):
        run_worker("bridge", failing(error))  # type: ignore[arg-type]
    assert pauses == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [(FatalError("sequence"), "fatal"), (ServerUnavailableError("away"), "transient")],
)
def test_a_worker_that_must_be_restarted_ends_after_a_pause(
    error: HeadraceError, kind: str, pauses: Pauses
) -> None:
    """Without the pause, a supervisor gives up after three quick exits."""
    with capture_logs() as logs, pytest.raises(type(error)):
        run_worker("bridge", failing(error))  # type: ignore[arg-type]
    assert pauses == [5.0]
    (entry,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["event"] == "worker failed and must be restarted"
    assert (entry["kind"], entry["problem"]) == (kind, str(error))


def test_an_unexpected_error_is_logged_once_and_ends_the_process(pauses: Pauses) -> None:
    with capture_logs() as logs, pytest.raises(SystemExit) as caught:
        run_worker("bridge", failing(ZeroDivisionError("a bug")))  # type: ignore[arg-type]
    assert caught.value.code == 1
    assert pauses == [5.0]
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["event"] for entry in errors] == [
        "worker failed unexpectedly and must be restarted"
    ]
    assert errors[0]["exc_info"]


WORKER = """
import sys, threading, time
from headrace.cli import app
from headrace.errors import FatalError
app._EXIT_SECONDS = 0.5
# Much longer than the rest takes on a busy machine.
app._RESTART_PAUSE_SECONDS = 120.0

def run(settings, stop):
    {body}

@app.app.command()
def work() -> None:
    app.run_worker("bridge", run)

sys.argv = ["headrace", "work"]
app.main()
"""


def run_process(tmp_path: Path, body: str, *, terminate_at: str = "") -> tuple[int, str, float]:
    """Run a worker in a separate process; return exit code, output and seconds."""
    begun = time.monotonic()
    environment = {name: os.environ[name] for name in os.environ if "HEADRACE" not in name}
    with subprocess.Popen(
        [sys.executable, "-c", WORKER.format(body=body)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if terminate_at and terminate_at in line:
                process.terminate()
        code = process.wait(60)
    return code, "".join(lines), time.monotonic() - begun


def test_a_termination_ends_the_pause(tmp_path: Path) -> None:
    body = "raise FatalError('sequence')"
    code, output, seconds = run_process(tmp_path, body, terminate_at="must be restarted")
    assert code == 1
    assert "headrace: sequence" in output
    assert seconds < 60


def test_a_hanging_thread_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    body = "threading.Thread(target=time.sleep, args=(600,)).start(); raise SystemExit(3)"
    code, _, seconds = run_process(tmp_path, body)
    assert code == 1
    assert seconds < 30
