"""``headrace login``: logins at the local MQTT broker."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.app import app, start
from headrace.cli.text import shown

__all__: list[str] = []


@app.command()
def login(
    devices: list[str] = typer.Argument(..., help="Device ids; each is also the login."),
    remove: bool = typer.Option(False, "--remove", help="Remove the logins."),
) -> None:
    """Create logins for devices at the local broker, and show their passwords once."""
    from headrace.storage.mqtt_logins import LoginFile, new_logins

    settings = start()
    file = LoginFile(settings.logins_dir / "passwords")
    if remove:
        for device in devices:
            file.remove(device)
        file.save()
    else:
        made = new_logins(file, devices)
        file.save()
        table = Table("login", "password")
        for device, password in made.items():
            table.add_row(shown(device), shown(password))
        Console().print(table)
    Console(stderr=True).print(
        "To make mosquitto read its logins again, run `make reload-logins` or "
        "`docker compose kill --signal HUP mosquitto`"
    )
