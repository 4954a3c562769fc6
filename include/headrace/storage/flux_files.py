"""Runs the Flux files of a profile, and writes points to its bucket of quality data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.storage.flux_values import FluxValue, Row
from headrace.storage.influx import Influx

__all__ = ["FluxFiles", "range_params"]


def range_params(windows: WindowRange) -> dict[str, FluxValue]:
    """Return the parameters that select a range of windows."""
    return {"start": windows.start, "stop": windows.stop, "window": windows.length}


class FluxFiles:
    """The Flux files of an installation, run for one kind of device.

    Parameters
    ----------
    influx
        InfluxDB.
    profile
        The kind of device.
    folder
        Folder of the files.
    """

    def __init__(self, influx: Influx, profile: Profile, folder: Path) -> None:
        self.profile = profile
        self._influx = influx
        self._folder = folder

    def run(self, file: str, params: Mapping[str, FluxValue]) -> list[Row]:
        """Run a file and return its rows.

        The names of the buckets and of the measurement are added to the parameters.

        Raises
        ------
        ConfigurationError
            If there is no such file.
        BadQueryError, AccessDeniedError, MissingResourceError, TransientError
            As `headrace.storage.influx.Influx.query`; the message names the file.
        """
        path = self._folder / file
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
            return self._influx.run(flux, {**names, **params})
        except Exception as exc:
            exc.add_note(f"while running {path.name}")
            raise

    def write_quality(self, lines: Iterable[str]) -> None:
        """Write points to the bucket of quality data."""
        self._influx.write(self.profile.buckets.quality, "\n".join(lines).encode())

    def delete(self, bucket: str, windows: WindowRange, measurement: str) -> None:
        """Delete the points of a measurement in the windows of a range."""
        self._influx.delete(bucket, windows.start, windows.stop, measurement)
