"""``headrace bridge`` and ``headrace sink``: the ingest workers."""

from __future__ import annotations

from headrace.cli.app import app, run_worker

__all__: list[str] = []


@app.command()
def bridge() -> None:
    """Move readings from the MQTT broker to Kafka, until told to stop."""
    from headrace.ingest.factory import run_bridge  # noqa: PLC0415

    run_worker("bridge", run_bridge)


@app.command()
def sink() -> None:
    """Move readings from Kafka to InfluxDB, until told to stop."""
    from headrace.ingest.factory import run_sink  # noqa: PLC0415

    run_worker("sink", run_sink)
