"""Makes the stack independent of the user's shell: environment, umask and proxy."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

__all__ = ["prepare_environment"]

#: Environment variables of servers that the user runs besides this stack.
_OF_OTHERS = ("AIRFLOW_", "INFLUXD_", "PG")
_DIRECT = ("127.0.0.1", "localhost", "::1")


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give the processes of the stack the same environment on every machine.

    Variables of other servers are removed, loopback addresses are reached without a proxy, and the
    umask lets servers that run as another user enter their folders. Files with secrets have an
    explicit mode.
    """
    for name in [name for name in environment if name.startswith(_OF_OTHERS)]:
        del environment[name]
    for name in ("no_proxy", "NO_PROXY"):
        given = [part for part in environment.get(name, "").split(",") if part.strip()]
        environment[name] = ",".join([*given, *(host for host in _DIRECT if host not in given)])
    os.umask(0o022)
