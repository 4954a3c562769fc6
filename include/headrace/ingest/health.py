"""What a worker says about itself: ``/healthz`` and Prometheus metrics on one port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from headrace.errors import ConfigurationError

__all__ = ["Health", "serve_health"]

_log = structlog.get_logger(__name__)

#: A worker whose loop has not come round for so long hangs.
_STALL_SECONDS = 30.0

_StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Health:
    """The conditions of a worker's surroundings, each fine or with what is wrong.

    A change is logged once, when it happens.

    Parameters
    ----------
    worker
        Name of the worker.
    conditions
        Names of what it depends on, such as ``kafka``. They begin as not yet known.
    """

    def __init__(self, worker: str, conditions: Iterable[str]) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._problems: dict[str, str | None] = dict.fromkeys(conditions, "starting")
        self._since = {name: time.time() for name in self._problems}
        self._notes: dict[str, object] = {}
        self._beat = time.monotonic()

    def note(self, name: str, value: object) -> None:
        """Add something to the report that does not bear on health."""
        self._notes[name] = value

    def beat(self) -> None:
        """Say that the worker's loop has come round."""
        self._beat = time.monotonic()

    def fine(self, condition: str) -> None:
        """Say that something works."""
        if self._problems[condition] is not None:
            self._change(condition, None)

    def problem(self, condition: str, what: str) -> None:
        """Say that something does not work, and what is wrong."""
        if self._problems[condition] != what:
            self._change(condition, what)

    def _change(self, condition: str, problem: str | None) -> None:
        with self._lock:
            was_fine = self._problems[condition] is None
            self._problems[condition] = problem
            if was_fine or problem is None:
                self._since[condition] = time.time()
        if problem is None:
            _log.info("works", condition=condition)
        else:
            _log.warning("does not work", condition=condition, problem=problem)

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether all is fine, and the report that ``/healthz`` gives."""
        stalled = time.monotonic() - self._beat > _STALL_SECONDS
        with self._lock:
            conditions = {
                name: {"state": problem or "fine", "since": self._since[name]}
                for name, problem in self._problems.items()
            }
            healthy = not stalled and not any(self._problems.values())
        loop = "stalled" if stalled else "fine"
        return healthy, {
            "worker": self._worker,
            "healthy": healthy,
            "loop": loop,
            "conditions": conditions,
            **self._notes,
        }


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing: a scrape every few seconds is no news."""


def serve_health(
    health: Health, registry: CollectorRegistry, host: str, port: int
) -> ThreadingWSGIServer:
    """Serve ``/healthz`` and ``/metrics`` from a thread of its own, until `shutdown`.

    Raises
    ------
    ConfigurationError
        If the port is taken.
    """
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def application(environ: dict[str, object], start: _StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/healthz":
            return metrics(environ, start)
        healthy, report = health.report()
        status = "200 OK" if healthy else "503 Service Unavailable"
        start(status, [("Content-Type", "application/json")])
        return [json.dumps(report).encode()]

    try:
        server = make_server(
            host, port, application, server_class=ThreadingWSGIServer, handler_class=_QuietHandler
        )
    except OSError as exc:
        msg = f"metrics can't be served on {host}:{port}: {exc.strerror}. Set another port"
        raise ConfigurationError(msg) from exc
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
