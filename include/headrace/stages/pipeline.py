"""What every stage uses: the profile, the queries, the clients and the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.storage.flux_values import FluxValue, Row
from headrace.storage.influx import Influx
from headrace.storage.kafka import Kafka

__all__ = ["Pipeline"]


def _system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Pipeline:
    """The profile, the Flux files and the clients of the servers.

    Parameters
    ----------
    profile
        The kind of device.
    flux_dir
        Folder of the Flux files.
    influx, kafka
        Clients.
    raw_retention
        How long raw readings are kept.
    clock
        Returns the current time.
    """

    profile: Profile
    flux_dir: Path
    influx: Influx
    kafka: Kafka
    raw_retention: timedelta
    clock: Callable[[], datetime] = _system_clock

    def run(self, file: str, params: Mapping[str, FluxValue]) -> list[Row]:
        """Run a Flux file and return its rows.

        The names of the buckets and of the measurement are added to the parameters.

        Raises
        ------
        ConfigurationError
            If there is no such file.
        BadQueryError, AccessDeniedError, MissingResourceError, TransientError
            As `headrace.storage.influx.Influx.query`; the message names the file.
        """
        path = self.flux_dir / file
        try:
            flux = path.read_text(encoding="utf-8")
        except OSError as exc:
            msg = f"no Flux file {path}: {exc.strerror}"
            raise ConfigurationError(msg) from exc
        buckets = self.profile.buckets
        names: dict[str, FluxValue] = {
            "raw": buckets.raw,
            "downsampled": buckets.downsampled,
            "quality": buckets.quality,
            "measurement": self.profile.measurement,
        }
        try:
            return self.influx.run(flux, {**names, **params})
        except Exception as exc:
            exc.add_note(f"while running {path.name}")
            raise

    def range_params(self, windows: WindowRange) -> dict[str, FluxValue]:
        """Return the parameters that select a range of windows."""
        return {"start": windows.start, "stop": windows.stop, "window": windows.length}

    @property
    def tagged(self) -> list[str]:
        """Columns of a row that are tags: the device id and the fixed tags."""
        return [self.profile.id_field, *self.profile.tags]
