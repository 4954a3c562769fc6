"""``headrace provision``: topics, buckets, tokens and logins."""

from __future__ import annotations

from datetime import timedelta

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.cli.app import app, start

__all__: list[str] = []


@app.command(name="provision")
def provision_command(
    wait: float = typer.Option(
        60.0, min=0.0, max=86_400.0, help="Seconds to wait for servers that are not running yet."
    ),
) -> None:
    """Create missing topics, buckets, least-privilege tokens and logins.

    You can run it again at any time, also after an interruption.
    """
    from headrace.profile import load_profile
    from headrace.storage.provision import provision

    settings = start()
    console = Console(stderr=True)
    done = provision(
        settings,
        load_profile(settings.profile),
        wait=timedelta(seconds=wait),
        not_yet=lambda error: console.print(f"waiting: {error}", style="dim", markup=False),
    )
    table = Table("what", "state", box=None)
    for name, what in done.items():
        table.add_row(escape(name), escape(what))
    Console().print(table)
