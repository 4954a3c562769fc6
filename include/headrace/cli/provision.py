"""``headrace provision``: topics, buckets, tokens and logins."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.cli.app import app, start

if TYPE_CHECKING:
    from headrace.storage.findings import Finding

__all__: list[str] = []


@app.command(name="provision")
def provision_command(
    wait: float = typer.Option(
        60.0, min=0.0, max=86_400.0, help="Seconds to wait for servers that are not running yet."
    ),
    check: bool = typer.Option(
        False,
        "--check",
        help="Change nothing. List what is missing in Kafka and InfluxDB, with the command or "
        "setting that corrects it. Ends with 1 if something is missing.",
    ),
) -> None:
    """Create missing topics, buckets, least-privilege tokens and logins.

    You can run it again at any time, also after an interruption. Topics and buckets that an
    administrator has created are accepted if they fit.
    """
    from headrace.profile import load_profile
    from headrace.storage import provision

    settings = start()
    profile = load_profile(settings.profile)
    console = Console(stderr=True)
    limit = timedelta(seconds=wait)

    def not_yet(error: BaseException) -> None:
        console.print(f"waiting: {error}", style="dim", markup=False)

    if check:
        _show(provision.check(settings, profile, wait=limit, not_yet=not_yet))
        return
    done = provision.provision(settings, profile, wait=limit, not_yet=not_yet)
    table = Table("what", "state", box=None)
    for name, what in done.items():
        table.add_row(escape(name), escape(what))
    Console().print(table)


def _show(findings: list[Finding]) -> None:
    """Print the findings, then the commands, each on one line for copying."""
    table = Table("what", "state", box=None)
    for finding in findings:
        table.add_row(escape(finding.what), escape(finding.state))
    console = Console()
    console.print(table)
    steps = dict.fromkeys(line for finding in findings for line in finding.step.splitlines())
    if not steps:
        return
    console.print("\nWhat to do, or to ask an administrator for:")
    for step in steps:
        typer.echo(step)
    raise typer.Exit(1)
