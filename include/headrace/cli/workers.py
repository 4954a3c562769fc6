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
        help="Take over what the broker still has for this bridge's session, remove the "
        "session, and end. For a bridge that is not coming back: stop it first.",
    ),
) -> None:
    """Move readings from the MQTT broker to Kafka, until told to stop."""
    from headrace.ingest.factory import run_bridge

    run_worker("bridge", partial(run_bridge, retire=retire))


@app.command()
def sink() -> None:
    """Move readings from Kafka to InfluxDB, until told to stop."""
    from headrace.ingest.factory import run_sink

    run_worker("sink", run_sink)
