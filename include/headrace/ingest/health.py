"""Serves a worker's ``/healthz`` and Prometheus metrics on one port."""

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

#: A worker counts as hanging if its loop does not report for this long.
_STALL_SECONDS = 30.0

_StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Health:
    """The state of each dependency of a worker: up, or a problem.

    Each change is logged once.

    Parameters
    ----------
    worker
        Name of the worker.
    conditions
        Names of its dependencies, such as ``kafka``. Their first state is "starting".
    """

    def __init__(self, worker: str, conditions: Iterable[str]) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._problems: dict[str, str | None] = dict.fromkeys(conditions, "starting")
        self._since = {name: time.time() for name in self._problems}
        self._notes: dict[str, object] = {}
        self._beat = time.monotonic()

    def note(self, name: str, value: object) -> None:
        """Add information to the report that does not make the worker unhealthy."""
        self._notes[name] = value

    def beat(self) -> None:
        """Report that the worker's loop runs."""
        self._beat = time.monotonic()

    def fine(self, condition: str) -> None:
        """Report that a dependency is available."""
        if self._problems[condition] is not None:
            self._change(condition, None)

    def problem(self, condition: str, what: str) -> None:
        """Report a problem of a dependency."""
        if self._problems[condition] != what:
            self._change(condition, what)

    def _change(self, condition: str, problem: str | None) -> None:
        with self._lock:
            was_fine = self._problems[condition] is None
            self._problems[condition] = problem
            if was_fine or problem is None:
                self._since[condition] = time.time()
        if problem is None:
            _log.info("dependency recovered", condition=condition)
        else:
            _log.warning("dependency unavailable", condition=condition, problem=problem)

    def report(self) -> tuple[bool, dict[str, object]]:
        """Return whether the worker is healthy, and the content of ``/healthz``."""
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
        """Log nothing, because there is a scrape every few seconds."""


def serve_health(
    health: Health, registry: CollectorRegistry, host: str, port: int
) -> ThreadingWSGIServer:
    """Serve ``/healthz`` and ``/metrics`` from a daemon thread, until `shutdown`.

    Raises
    ------
    ConfigurationError
        If the port is taken.
    """
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def application(environ: dict[str, object], start: _StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start)
        if path != "/healthz":
            # A health check with a wrong path must not succeed.
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the paths are /healthz and /metrics\n"]
        healthy, report = health.report()
        status = "200 OK" if healthy else "503 Service Unavailable"
        start(status, [("Content-Type", "application/json")])
        return [json.dumps(report).encode()]

    try:
        server = make_server(
            host, port, application, server_class=ThreadingWSGIServer, handler_class=_QuietHandler
        )
    except OSError as exc:
        msg = f"metrics can't be served on {host}:{port}: {exc.strerror}. Set another metrics port"
        raise ConfigurationError(msg) from exc
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
