"""What a worker answers on its port."""

from __future__ import annotations

import pytest
import urllib3
from prometheus_client import CollectorRegistry

from headrace.ingest.health import Health, serve_health
from native.servers import LOOPBACK


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 503), ("/metrics", 200), ("/health", 404), ("/metric", 404), ("/", 404)],
)
def test_a_path_that_does_not_exist_never_reports_health(path: str, status: int) -> None:
    """A health check with a wrong path must fail, whatever the worker's health is."""
    health = Health("sink", ["kafka"])
    server = serve_health(health, CollectorRegistry(), LOOPBACK, 0)
    try:
        url = f"http://{LOOPBACK}:{server.server_port}{path}"
        assert urllib3.request("GET", url, retries=False).status == status
    finally:
        server.shutdown()
        server.server_close()
