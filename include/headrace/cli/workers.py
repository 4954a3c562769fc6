"""``headrace bridge`` and ``headrace sink``: the ingest workers."""

from __future__ import annotations

from functools import partial

import typer

from headrace.cli.app import app, run_worker

__all__: list[str] = []


@app.command()
def bridge(
    retire: bool = typer.Option(
        False,
        "--retire",
        help="Move all messages that the broker has queued for this bridge to Kafka, remove the "
        "bridge's session, and exit. Stop the bridge first. An interrupted run removes nothing "
        "and exits with 1.",
    ),
) -> None:
    """Move readings from the MQTT broker to Kafka until stopped."""
    from headrace.ingest.bridge_factory import run_bridge

    run_worker("bridge", partial(run_bridge, retire=retire))


@app.command()
def sink() -> None:
    """Move readings from Kafka to InfluxDB until stopped."""
    from headrace.ingest.factory import run_sink

    run_worker("sink", run_sink)
