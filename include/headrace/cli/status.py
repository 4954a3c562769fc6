"""``headrace status``: the state of all components, windows and devices."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.cli.app import app, start
from headrace.cli.text import shown

if TYPE_CHECKING:
    from headrace.status import Status

__all__: list[str] = []

_NAMED_DEVICES = 10


@app.command()
def status(
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of tables."),
) -> None:
    """Show the state of all components, windows and devices.

    Exits with 0 if the installation is healthy, else with 1.
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
        components.add_row(name, shown(state, "green" if state == "up" else "red"))
    console.print(components)
    numbers = Table("what", "number", title="Numbers", title_justify="left")
    for name, value in (
        ("readings received from MQTT since the bridge started", result.mqtt["received"]),
        ("messages that the broker dropped since it started", result.mqtt["dropped"]),
        ("readings in Kafka (offsets)", result.kafka["raw"]),
        ("dead letters in Kafka (offsets)", result.kafka["dead_letter"]),
        ("readings written to InfluxDB since the sink started", result.sink["written"]),
        ("readings that the sink has not written yet", result.sink["lag"]),
        ("downsampled rows in Kafka (offsets)", result.kafka["downsampled"]),
        ("changes of alarms in Kafka (offsets)", result.kafka["alarms"]),
        ("newest computed window", result.windows["latest"]),
        ("missing windows", result.windows["missing"]),
        ("devices online", result.devices["online"]),
        ("devices offline", len(result.devices["offline"])),
        ("devices with a wrong clock", len(result.devices["drifting"])),
    ):
        numbers.add_row(name, "?" if value is None else str(value))
    console.print(numbers)
    console.print("Offsets include transaction markers, so the number of records may be lower.")
    _show_devices(console, result)
    for title, sentences, style in (
        ("Problems", result.problems, "red"),
        ("Notices", result.notices, "yellow"),
    ):
        if sentences:
            console.print(Text(title, style=f"bold {style}"))
            for sentence in sentences:
                # Lines are not wrapped, so that they can be copied and searched for.
                console.print(Text.assemble("- ", shown(sentence)), soft_wrap=True)
    console.print("[bold green]healthy[/]" if result.healthy else "[bold red]not healthy[/]")


def _show_devices(console: Console, result: Status) -> None:
    offline = result.devices["offline"]
    if offline:
        table = Table("device", "offline since", title="Offline", title_justify="left")
        for item in offline[:_NAMED_DEVICES]:
            table.add_row(shown(item["device"]), item["since"])
        if len(offline) > _NAMED_DEVICES:
            table.add_row("...", f"{len(offline) - _NAMED_DEVICES} more")
        console.print(table)
    drifting = result.devices["drifting"]
    if drifting:
        table = Table("device", "its clock", title="Clocks", title_justify="left")
        for device, seconds in list(drifting.items())[:_NAMED_DEVICES]:
            way = "behind" if seconds > 0 else "ahead"
            table.add_row(shown(device), f"{abs(seconds):.1f} s {way}")
        if len(drifting) > _NAMED_DEVICES:
            table.add_row("...", f"{len(drifting) - _NAMED_DEVICES} more")
        console.print(table)
