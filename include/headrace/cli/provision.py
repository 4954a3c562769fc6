"""``headrace provision``: topics, buckets and tokens."""

from __future__ import annotations

from datetime import timedelta

import typer
from rich.console import Console
from rich.table import Table
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from headrace.cli.app import app, start
from headrace.errors import TransientError

__all__: list[str] = []


@app.command()
def provision(
    wait: float = typer.Option(60.0, help="Seconds to wait for servers that are not up yet."),
) -> None:
    """Make topics, buckets and least-privilege tokens. Harmless when they are there."""
    from headrace.profile import load_profile  # noqa: PLC0415
    from headrace.storage.influx_setup import provision_influx  # noqa: PLC0415
    from headrace.storage.kafka import Kafka  # noqa: PLC0415
    from headrace.storage.kafka_topics import provision_topics  # noqa: PLC0415

    settings = start()
    profile = load_profile(settings.profile)
    console = Console(stderr=True)

    def not_yet(attempt: RetryCallState) -> None:
        if attempt.outcome is not None:
            console.print(f"waiting: {attempt.outcome.exception()}", style="dim")

    attempts = Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_fixed(timedelta(seconds=1)),
        stop=stop_after_delay(wait),
        before_sleep=not_yet,
        reraise=True,
    )
    done = attempts(provision_influx, settings, profile)
    topics = attempts(provision_topics, Kafka.from_settings(settings), profile, settings)
    table = Table("what", "state", box=None)
    for name, what in done.items():
        table.add_row(name, what)
    for name, what in topics.items():
        table.add_row(f"topic {name}", what)
    Console().print(table)
