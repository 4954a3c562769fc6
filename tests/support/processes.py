"""Processes that tests start, stop and kill by process id."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from native.servers import Server, port_is_free, wait_until_ready

__all__ = ["Process", "free_port", "wait_for"]

_T = TypeVar("_T")


def free_port() -> int:
    """Return an unused loopback port that no other caller gets."""
    while not port_is_free(port := next(_ports)):
        pass
    return port


def _shuffled_ports() -> Iterator[int]:
    """Return ports outside the range of outgoing connections, in random order.

    An outgoing connection could otherwise take the port of a killed server. Test processes
    that run at the same time use different ports.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    numbers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = list(range(10_000, 32_000))[number::numbers]
    random.SystemRandom().shuffle(ports)
    yield from ports


_ports = _shuffled_ports()


def wait_for(what: Callable[[], _T], seconds: float = 30.0, every: float = 0.1) -> _T:
    """Wait until a function returns a true value; return it, or fail with the last value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > deadline:
            msg = f"still {value!r} after {seconds:.0f} s"
            raise AssertionError(msg)
        time.sleep(every)
    return value


class Process:
    """A server process that can be stopped, killed and started again."""

    def __init__(self, server: Server, log: Path, base: Mapping[str, str] | None = None) -> None:
        self.server = server
        self.log = log
        self._base = dict(os.environ if base is None else base)
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.server.name} was never started"
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self, seconds: float = 60.0) -> None:
        """Start the process and wait until it answers."""
        self.launch()
        try:
            wait_until_ready(self.server, lambda: self.alive, seconds)
        except Exception as exc:
            exc.add_note(self.tail())
            raise

    def launch(self) -> None:
        """Start the process without waiting."""
        assert not self.alive, f"{self.server.name} runs already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.server.command,
                cwd=self.server.folder,
                env={**self._base, **self.server.environment},
                user=self.server.user,
                group=self.server.user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A separate process group, so that children can be killed with it.
                start_new_session=True,
            )

    def stop(self, seconds: float | None = None) -> int:
        """Ask the process to stop and wait; if it is too slow, kill it and fail."""
        if not self.alive:
            return self._popen.returncode if self._popen else 0
        assert self._popen is not None
        self._popen.send_signal(signal.SIGTERM)
        try:
            return self._popen.wait(seconds or self.server.stop_seconds)
        except subprocess.TimeoutExpired as exc:
            self.kill()
            exc.add_note(self.tail())
            raise

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL."""
        if self._popen is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP."""
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Wait until the process exits."""
        assert self._popen is not None
        return self._popen.wait(seconds)

    def tail(self, lines: int = 30) -> str:
        """Return the last lines of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.server.name}\n" + "\n".join(text.splitlines()[-lines:])
