"""Generates benchmark tables for the documents from ``benchmarks/results.json``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.table import markdown_rows
from tools.docs_tables import table

__all__ = ["RESULTS", "benchmarks", "peers"]

#: The file that `make bench` writes.
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results.json"

#: Rows of the overview, with a description and the peer's full name.
_COMPARED = {
    "bridge.cpu": ("MQTT to Kafka, readings per CPU second", "Telegraf"),
    "bridge.rate": ("MQTT to Kafka, readings per second", "Telegraf"),
    "sink.rate": ("Kafka to InfluxDB, readings per second", "Telegraf"),
    "path.rate": ("MQTT to InfluxDB, readings per second", "two Telegrafs"),
    "downsample.hour": ("downsample 60 windows, seconds", "one InfluxDB task per window"),
}
_OWN = {
    "fresh.p95": "95 % of rows reach consumers after the window's end within, seconds",
    "heal.day": "compute a missed day of 1,440 windows, seconds",
}


def benchmarks() -> str:
    """Return the table of all measured rows."""
    if not RESULTS.exists():
        return "`make bench` has not been run yet."
    about = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = about["machine"]
    header, *rows = markdown_rows(RESULTS)
    return "\n\n".join(
        [
            (
                f"Measured on {machine['cores']} cores of {machine['cpu']}, "
                f"{machine['memory_gib']} GiB."
            ),
            table(header, rows),
            ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
        ]
    )


def peers() -> str:
    """Return the table of the overview."""
    if not RESULTS.exists():
        return "`make bench` has not been run yet."
    machine = json.loads(RESULTS.read_text(encoding="utf-8"))["machine"]
    cells = {row[0].strip("`"): row for row in markdown_rows(RESULTS)}
    rows = []
    for name, (what, peer) in _COMPARED.items():
        if name in cells:
            _, ours, _, _, theirs, ratio, *_ = cells[name]
            rows.append([what, ours, f"{peer}: {theirs}", f"{ratio} x"])
    rows += [[what, cells[name][1], "", ""] for name, what in _OWN.items() if name in cells]
    where = f"Measured on {machine['cores']} cores of {machine['cpu']}, everything on one machine."
    return f"{table(['measured', 'Headrace', 'peer', 'ratio'], rows)}\n\n{where}"
