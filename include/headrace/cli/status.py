"""``headrace status``: how everything is doing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.app import app, start

if TYPE_CHECKING:
    from headrace.status import Status

__all__: list[str] = []

_NAMED_DEVICES = 10


@app.command()
def status(
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of tables."),
) -> None:
    """Show how every component, the windows and the devices are doing.

    Exits with 0 if all is well, else with 1.
    """
    from headrace.profile import load_profile
    from headrace.status import collect_status

    settings = start()
    result = collect_status(settings, load_profile(settings.profile))
    if as_json:
        sys.stdout.write(f"{json.dumps(result.as_dict(), indent=2)}\n")
    else:
        _show(result)
    raise typer.Exit(0 if result.healthy else 1)


def _show(result: Status) -> None:
    console = Console()
    components = Table("component", "state", title="Components", title_justify="left")
    for name, state in result.components.items():
        style = "green" if state == "up" else "red"
        components.add_row(name, f"[{style}]{state}[/]")
    console.print(components)
    numbers = Table("what", "number", title="Numbers", title_justify="left")
    for name, value in (
        ("readings taken from MQTT, since the bridge started", result.mqtt["received"]),
        ("readings in Kafka", result.kafka["raw"]),
        ("dead letters in Kafka", result.kafka["dead_letter"]),
        ("readings written to InfluxDB, since the sink started", result.sink["written"]),
        ("readings that the sink has still to write", result.sink["lag"]),
        ("downsampled rows in Kafka", result.kafka["downsampled"]),
        ("changes of alarms in Kafka", result.kafka["alarms"]),
        ("newest computed window", result.windows["latest"]),
        ("missing windows", result.windows["missing"]),
        ("devices online", result.devices["online"]),
        ("devices offline", len(result.devices["offline"])),
        ("devices whose clock is off", len(result.devices["drifting"])),
    ):
        numbers.add_row(name, "?" if value is None else str(value))
    console.print(numbers)
    if result.devices["offline"]:
        offline = Table("device", "offline since", title="Offline", title_justify="left")
        for item in result.devices["offline"][:_NAMED_DEVICES]:
            offline.add_row(item["device"], item["since"])
        if len(result.devices["offline"]) > _NAMED_DEVICES:
            offline.add_row("...", f"{len(result.devices['offline']) - _NAMED_DEVICES} more")
        console.print(offline)
    if result.devices["drifting"]:
        drifting = Table("device", "its clock", title="Clocks", title_justify="left")
        for device, seconds in list(result.devices["drifting"].items())[:_NAMED_DEVICES]:
            way = "behind" if seconds > 0 else "ahead"
            drifting.add_row(device, f"{abs(seconds):.1f} s {way}")
        if len(result.devices["drifting"]) > _NAMED_DEVICES:
            drifting.add_row("...", f"{len(result.devices['drifting']) - _NAMED_DEVICES} more")
        console.print(drifting)
    console.print("[bold green]healthy[/]" if result.healthy else "[bold red]not healthy[/]")
