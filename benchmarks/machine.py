"""Describes the machine and the versions of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import headrace
from benchmarks.peers import TELEGRAF_VERSION, benthos_version
from headrace.models.window import rfc3339
from native.programs import HERE, pinned_version

__all__ = ["about"]

_PACKAGES = ("confluent-kafka", "influxdb-client", "msgspec", "paho-mqtt", "apache-airflow")


def about() -> dict[str, Any]:
    """Return machine, versions and time."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "measured": rfc3339(datetime.now(UTC).replace(microsecond=0)),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(memory / 2**30, 1),
        },
        "versions": {
            "system": platform.platform(),
            "headrace": importlib.metadata.version(headrace.__name__),
            "python": platform.python_version(),
            "kafka": pinned_version(HERE / "kafka" / "pom.xml", r"<version>([\d.]+)</version>"),
            "influxdb": pinned_version(HERE / "influxd" / "go.mod", r"influxdb/v2 v([\d.]+)"),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "telegraf": TELEGRAF_VERSION,
            "benthos": benthos_version(),
        },
    }


def _cpu_model() -> str:
    match = re.search(
        r"^model name\s*:\s*(.+)$",
        Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return match[1] if match else platform.processor()
