"""``headrace provision``: topics, buckets, tokens and logins."""

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
    """Make topics, buckets, least-privilege tokens, and logins. Harmless when they are there."""
    from headrace.profile import load_profile
    from headrace.storage.influx_setup import provision_influx
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_topics import provision_topics
    from headrace.storage.mqtt_logins import provision_logins

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
    # First, because it waits for nobody: a broker with logins starts only with their file.
    logins = provision_logins(settings, profile)
    done = attempts(provision_influx, settings, profile)
    topics = attempts(provision_topics, Kafka.from_settings(settings), profile, settings)
    table = Table("what", "state", box=None)
    for name, what in {**logins, **done}.items():
        table.add_row(name, what)
    for name, what in topics.items():
        table.add_row(f"topic {name}", what)
    Console().print(table)
