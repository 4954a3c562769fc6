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
        help="Move what the broker still holds for this bridge's session to Kafka, remove the "
        "session, and end. Use it for a bridge that does not come back, and stop that one "
        "first. If it is interrupted, it removes nothing and ends with 1.",
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
