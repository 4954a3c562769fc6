"""Settings of the installation, its workers and its windows.

``docs/reference/settings.md`` is generated from these groups.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from headrace.checks.addresses import HostName, Port
from headrace.checks.durations import Lasting
from headrace.checks.moments import Moment
from headrace.checks.values import (
    ExistingFile,
    Folder,
    OneOf,
    Switch,
    Text,
    Whole,
)
from headrace.setting_choices import (
    LogFormat,
    LogLevel,
)

__all__ = [
    "BridgeSettings",
    "InstallationSettings",
    "SinkSettings",
    "WindowSettings",
    "WorkerSettings",
]

#: It has links to the Flux files and profiles beside it; in a wheel it has the files.
_PACKAGE = Path(__file__).resolve().parent


class InstallationSettings(BaseModel):
    """The installation."""

    profile: Annotated[Path, ExistingFile()] = Field(
        (_PACKAGE / "profiles" / "generators.yaml").resolve(),
        description="The device profile, a YAML file.",
    )
    flux_dir: Annotated[Path, Folder(exists=True)] = Field(
        (_PACKAGE / "flux").resolve(), description="Folder of the Flux stages."
    )
    state_dir: Annotated[Path, Folder()] = Field(
        Path(".state"), description="Folder of the tokens, and of the local stack's data and logs."
    )
    installed_at: Annotated[datetime, Moment()] = Field(
        datetime(1970, 1, 1, tzinfo=UTC),
        description="Start of this installation: no earlier window is expected. "
        "`make env` writes it.",
    )
    in_container: Annotated[bool, Switch()] = Field(
        default=False,
        description="docker-compose.yaml sets it: loopback is then no address of a server, because "
        "it is the container itself.",
    )
    log_level: Annotated[LogLevel, OneOf(LogLevel)] = Field(
        LogLevel.INFO, description="Lowest level of log lines: debug, info, warning or error."
    )
    log_format: Annotated[LogFormat, OneOf(LogFormat)] = Field(
        LogFormat.CONSOLE, description="`console` for people, `json` for machines."
    )


class BridgeSettings(BaseModel):
    """Bridge."""

    bridge_id: Annotated[
        str,
        Text("1 to 100 letters, digits, dots, hyphens and underscores", r"[A-Za-z0-9_.-]{1,100}"),
    ] = Field(
        "headrace-bridge",
        description="Name of this bridge: its MQTT client id, and so its session. Each bridge "
        "needs one of its own, and keeps it across restarts.",
    )
    bridge_buffer_bytes: Annotated[int, Whole(1 << 20, 16 << 30)] = Field(
        16 << 20,
        description="Maximum bytes that the bridge buffers while Kafka is slower than the broker.",
    )
    bridge_metrics_port: Port = Field(
        9101, description="Port of the bridge's /metrics and /healthz."
    )
    max_payload_bytes: Annotated[int, Whole(64, 900_000)] = Field(
        64 * 1024, description="Size of the largest reading that is accepted, in bytes."
    )
    max_time_ahead: Annotated[timedelta, Lasting("0s", "1d")] = Field(
        timedelta(minutes=5), description="How far `time` may be ahead of the bridge's clock."
    )
    max_clock_drift: Annotated[timedelta, Lasting("1ms", "365d")] = Field(
        timedelta(seconds=30),
        description="A device whose clock is wrong by more counts as drifting.",
    )
    max_new_devices: Annotated[int, Whole(1, 100_000_000)] = Field(
        10_000,
        description="Number of new device ids the bridge accepts per minute. Readings of further "
        "new ids become dead letters with the reason `too_many_devices`.",
    )
    max_devices: Annotated[int, Whole(1, 100_000_000)] = Field(
        200_000,
        description="Total number of device ids the bridge accepts. Readings of further ids "
        "become dead letters with the reason `too_many_devices`.",
    )


class SinkSettings(BaseModel):
    """Sink."""

    sink_id: Annotated[
        str | None,
        Text("1 to 249 letters, digits, dots, hyphens and underscores", r"[A-Za-z0-9._-]{1,249}"),
    ] = Field(
        None,
        description="Static member name of this sink in the consumer group. With it, a restarted "
        "sink gets its partitions back without a rebalance.",
    )
    sink_metrics_port: Port = Field(9102, description="Port of the sink's /metrics and /healthz.")
    sink_batch_readings: Annotated[int, Whole(1, 100_000)] = Field(
        5000, description="Maximum number of readings in one write to InfluxDB."
    )
    sink_linger: Annotated[timedelta, Lasting("0s", "1m")] = Field(
        timedelta(milliseconds=100),
        description="How long a reading waits for its batch to fill.",
    )
    sink_writes_in_flight: Annotated[int, Whole(1, 16)] = Field(
        3, description="Maximum number of concurrent writes to InfluxDB."
    )
    sink_buffer_bytes: Annotated[int, Whole(1 << 20, 1 << 30)] = Field(
        1 << 20, description="Maximum bytes that the sink prefetches from Kafka."
    )


class WorkerSettings(BaseModel):
    """Workers."""

    metrics_host: HostName = Field("127.0.0.1", description="Address that metrics are served on.")
    bridge_host: HostName = Field(
        "127.0.0.1", description="Host at which `headrace status` finds the bridge's metrics."
    )
    sink_host: HostName = Field(
        "127.0.0.1", description="Host at which `headrace status` finds the sink's metrics."
    )
    drain_limit: Annotated[timedelta, Lasting("1s", "10m")] = Field(
        timedelta(seconds=10),
        description="Time limit for a stopping worker to finish its readings.",
    )


class WindowSettings(BaseModel):
    """Windows."""

    heal_horizon: Annotated[timedelta, Lasting("1m", "36500d")] = Field(
        timedelta(hours=24),
        description="How far back windows are healed automatically; `HEADRACE_RAW_RETENTION` or "
        "less.",
    )
    settle_limit: Annotated[timedelta, Lasting("0s", "1h")] = Field(
        timedelta(seconds=30),
        description="How long a window waits for the sink before it is computed unsettled.",
    )
