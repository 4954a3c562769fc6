"""``headrace login``: logins of devices at the broker, and of consumers at Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.app import app, start
from headrace.cli.text import shown

if TYPE_CHECKING:
    from headrace.settings import Settings

__all__: list[str] = []


@app.command()
def login(
    names: list[str] = typer.Argument(
        ..., help="Device ids, each of which is also the login; or names of consumers."
    ),
    remove: bool = typer.Option(False, "--remove", help="Remove the logins."),
    consumer: bool = typer.Option(
        False,
        "--consumer",
        help="Logins at the bundled Kafka instead, for consumers on other machines. They may read "
        "the published rows and alarms, in consumer groups whose name is the login or begins "
        "with it and a dot.",
    ),
) -> None:
    """Create logins for devices at the bundled broker and print their passwords once.

    A login that exists gets a new password.
    """
    settings = start()
    made = (_at_kafka if consumer else _at_broker)(settings, names, remove=remove)
    if made:
        table = Table("login", "password")
        for name, password in made.items():
            table.add_row(shown(name), shown(password))
        Console().print(table)
    if not consumer:
        Console(stderr=True).print(
            "To make mosquitto read its logins again, run `make reload-logins` or "
            "`docker compose kill --signal HUP mosquitto`"
        )


def _at_broker(settings: Settings, names: list[str], *, remove: bool) -> Mapping[str, str]:
    from headrace.storage.mqtt_logins import LoginFile, new_logins

    file = LoginFile(settings.logins_dir / "passwords")
    made: Mapping[str, str] = {}
    if remove:
        for name in names:
            file.remove(name)
    else:
        made = new_logins(file, names)
    file.save()
    return made


def _at_kafka(settings: Settings, names: list[str], *, remove: bool) -> Mapping[str, str]:
    from headrace.profile import load_profile
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_logins import new_consumers, remove_consumers

    kafka, profile = Kafka.from_settings(settings), load_profile(settings.profile)
    if remove:
        remove_consumers(kafka, profile, names)
        return {}
    return new_consumers(kafka, profile, names)
