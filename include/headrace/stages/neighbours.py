"""The stored rows just before and just after a range of windows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace.models.silence import windows_of_silence
from headrace.models.window import WindowRange
from headrace.stages.pipeline import Pipeline
from headrace.storage.flux_values import Row

__all__ = ["END_OF_TIME", "READINGS", "Neighbours", "Values", "find_neighbours"]

#: The field that every row has.
READINGS = "readings"
#: No clock is asked how far rows reach: one that is behind would miss some.
END_OF_TIME = datetime(2200, 1, 1, tzinfo=UTC)
#: A device that reports is found within so many windows; only the others are searched longer.
_NEAR = 15
_QUERIES_AT_ONCE = 2

#: By device: start of a window, and the value of a field in it.
Values = dict[str, tuple[datetime, Any]]


@dataclass(frozen=True)
class Neighbours:
    """By field and device: the last value before a range, and the first one after it."""

    before: Mapping[str, Values]
    after: Mapping[str, Values]


def find_neighbours(
    windows: WindowRange,
    devices: Collection[str],
    fields: Sequence[str],
    pipeline: Pipeline,
) -> Neighbours:
    """Find the neighbours of a range.

    Of devices that are named, or have a row after the range, the whole retention time is
    searched. Of others, only as far as a silence can reach into the range.

    Parameters
    ----------
    windows
        The range.
    devices
        Devices with rows in the range, or with published changes.
    fields
        Fields of the rows.
    pipeline
        Profile and clients.
    """
    length = windows.length
    near = windows.start - length * max(_NEAR, windows_of_silence(pipeline.profile) + 1)
    far = windows.start - pipeline.raw_retention
    begin = max(near, far)
    # Each query keeps one core of InfluxDB busy.
    with ThreadPoolExecutor(_QUERIES_AT_ONCE) as pool:

        def ask(
            file: str, fields: Iterable[str], start: datetime, stop: datetime
        ) -> dict[str, Values]:
            asked = {
                name: pool.submit(pipeline.run, file, {"start": start, "stop": stop, "field": name})
                for name in fields
            }
            return {name: _values(query.result(), pipeline) for name, query in asked.items()}

        after = ask("first_after.flux", fields, windows.stop, END_OF_TIME)
        before = ask("last_before.flux", fields, begin, windows.start)
        wanted = {*devices, *after[READINGS]}
        missing = [name for name in fields if not wanted <= before[name].keys()]
        if far < begin and missing:
            for name, values in ask("last_before.flux", missing, far, begin).items():
                before[name] = {**values, **before[name]}
    return Neighbours(before, after)


def _values(rows: Iterable[Row], pipeline: Pipeline) -> Values:
    device_of = pipeline.profile.id_field
    return {row[device_of]: (row["_time"], row["_value"]) for row in rows}
