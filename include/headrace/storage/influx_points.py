"""Reads devices and times of the raw readings in InfluxDB, to the nanosecond."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from headrace.models.device_time import epoch_ns
from headrace.profile import Profile
from headrace.storage.flux_values import FluxValue
from headrace.storage.influx import Influx

__all__ = ["stored_points"]

#: Points are queried in pieces to limit the length of an answer.
_PIECE = timedelta(minutes=10)

_POINTS = """
from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.counted)
    |> keep(columns: ["_time", params.id])
    |> group()
"""


def stored_points(
    influx: Influx, profile: Profile, start: datetime, stop: datetime
) -> Iterator[tuple[str, int]]:
    """Read the raw readings of ``[start, stop)``.

    Yields
    ------
    tuple
        Device, and time in nanoseconds since the epoch.
    """
    begin = start
    while begin < stop:
        end = min(begin + _PIECE, stop)
        params: dict[str, FluxValue] = {
            "raw": profile.buckets.raw,
            "measurement": profile.measurement,
            "counted": profile.counted_field,
            "id": profile.id_field,
            "start": begin,
            "stop": end,
        }
        # Times stay text because a datetime has only microseconds.
        for row in influx.query(_POINTS, params, times_as_text=True):
            yield row[profile.id_field], _nanoseconds(row["_time"])
        begin = end


def _nanoseconds(text: str) -> int:
    """Parse InfluxDB's RFC 3339 time, which has up to nine decimals."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return epoch_ns(moment) + int(fraction.ljust(9, "0") or "0")
