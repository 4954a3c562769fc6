"""Airflow's processes and their environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import urllib3

from headrace.orchestration.environment import derived_environment, write_login
from headrace.settings import Settings
from native.programs import HERE
from native.servers import LOOPBACK, Server, shared_environment

__all__ = ["airflow_environment", "airflow_servers", "init_commands"]

_CHECKOUT = HERE.parent
_WILDCARDS = ("0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not listened on


def airflow_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return the environment of every Airflow process.

    Parameters
    ----------
    settings
        Addresses and secrets.
    folder
        ``AIRFLOW_HOME``, the folder of the logs and of the UI's password.
    """
    folder.mkdir(parents=True, exist_ok=True)
    passwords = folder / "passwords.json"
    write_login(settings, passwords)
    return {
        **shared_environment("airflow"),
        **derived_environment(settings, settings.local_airflow_url),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_CHECKOUT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(_CHECKOUT / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__HOST": settings.airflow_host,
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        **_no_proxy(settings),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def airflow_servers(
    settings: Settings, folder: Path, environment: Mapping[str, str]
) -> list[Server]:
    """Return Airflow's four processes. The api-server is first, because the others need it."""
    health = f"{settings.local_airflow_url}/api/v2/monitor/health"
    airflow = str(Path(sys.executable).parent / "airflow")

    def process(*arguments: str, part: str | None = None) -> Server:
        return Server(
            f"airflow-{arguments[0]}",
            (airflow, *arguments),
            folder,
            environment=environment,
            ready=lambda: _part_is_healthy(health, part),
            stop_seconds=40,
        )

    return [
        process("api-server"),
        # The api-server reads logs from the disk, so no other process serves them.
        process("scheduler", "--skip-serve-logs", part="scheduler"),
        process("dag-processor", part="dag_processor"),
        process("triggerer", "--skip-serve-logs", part="triggerer"),
    ]


def init_commands() -> list[tuple[str, ...]]:
    """Return the commands that run before Airflow starts. They can be repeated."""
    airflow = str(Path(sys.executable).parent / "airflow")
    return [
        (airflow, "db", "migrate"),
        (airflow, "pools", "import", str(HERE / "config" / "pools.json")),
    ]


def _no_proxy(settings: Settings) -> dict[str, str]:
    """Return the hosts that Airflow's processes reach directly, without ``http_proxy``.

    A proxy cannot reach loopback addresses of this machine, so every task would fail if a proxy is
    set.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    host = settings.airflow_host
    direct = [LOOPBACK, "localhost", "::1", *([] if host in _WILDCARDS else [host])]
    value = ",".join(dict.fromkeys([*names, *direct]))
    return {"no_proxy": value, "NO_PROXY": value}


def _part_is_healthy(url: str, part: str | None) -> bool:
    try:
        response = urllib3.request("GET", url, timeout=5, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    if response.status != 200:  # noqa: PLR2004
        return False
    return part is None or response.json().get(part, {}).get("status") == "healthy"
