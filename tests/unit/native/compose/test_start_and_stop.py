"""Order of starting, restarts, and volumes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.settings import BundledServer, Settings
from native.servers import Server
from tests.support.compose import AIRFLOW, ONE_SHOTS, TOOLS, WORKERS, Compose


def test_each_image_is_built_once(compose: Compose) -> None:
    for target, services in (("workers", WORKERS), ("airflow", AIRFLOW)):
        assert {compose.services[name]["image"] for name in services} == {
            f"headrace-{target}:local"
        }
        builders = [name for name in services if "build" in compose.services[name]]
        assert len(builders) == 1, "builds of one name at once are in each other's way"
        (builder,) = builders
        assert compose.services[builder]["build"] == {"context": ".", "target": target}
        for name in services:
            policy = "build" if name == builder else "never"
            assert compose.services[name]["pull_policy"] == policy, name
        # Starting one service alone also starts the builder.
        for name in services - TOOLS - {builder}:
            assert builder in _all_before(compose, name), name


def test_your_own_server_replaces_each_bundled_one(compose: Compose) -> None:
    for name, service in compose.services.items():
        for other, need in service.get("depends_on", {}).items():
            is_server = other in set(BundledServer)
            assert need.get("required", True) == (not is_server), f"{name} needs {other}"


def test_stop_times_are_those_of_make_up(
    compose: Compose, native_servers: Mapping[str, Server]
) -> None:
    for name, server in native_servers.items():
        assert seconds(compose.services[name]["stop_grace_period"]) >= server.stop_seconds, name
    drain_limit = Settings.model_fields["drain_limit"].default.total_seconds()
    for name in ("bridge", "sink"):
        assert seconds(compose.services[name]["stop_grace_period"]) > drain_limit + 20, name


def test_permanent_services_have_a_memory_limit(compose: Compose) -> None:
    for name, service in compose.services.items():
        if name not in ONE_SHOTS | TOOLS:
            assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name


def test_no_anonymous_volumes_are_left(compose: Compose) -> None:
    """Folders that the official images declare as volumes."""
    declared = {
        "mosquitto": {"/mosquitto/data", "/mosquitto/log"},
        "kafka": {"/etc/kafka/secrets", "/mnt/shared/config", "/var/lib/kafka/data"},
        "influxdb": {"/etc/influxdb2", "/var/lib/influxdb2"},
        "postgres": {"/var/lib/postgresql/data"},
    }
    for name, folders in declared.items():
        assert folders <= {*compose.mounts(name), *compose.services[name].get("tmpfs", [])}, name


def _all_before(compose: Compose, name: str) -> set[str]:
    found: set[str] = set()
    for other in compose.services[name].get("depends_on", {}):
        found |= {other, *_all_before(compose, other)}
    return found


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match is not None, f"{duration}: write seconds"
    return int(match[1])
