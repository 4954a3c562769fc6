"""Finds the stored rows just before and just after a range of windows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.models.row import READINGS
from headrace.models.silence import windows_of_silence
from headrace.models.window import WindowRange
from headrace.stages.pipeline import Pipeline
from headrace.stages.window_store import Neighbours

__all__ = ["find_neighbours"]

#: Windows to search for a reporting device; only other devices are searched further.
_NEAR = 15


def find_neighbours(
    windows: WindowRange,
    devices: Collection[str],
    fields: Sequence[str],
    pipeline: Pipeline,
) -> Neighbours:
    """Find the neighbours of a range.

    For named devices, and devices with a row after the range, the whole retention time is
    searched. For others, the search ends where a silence could no longer reach the range.

    Parameters
    ----------
    windows
        The range.
    devices
        Devices with rows in the range, or with published changes.
    fields
        Fields of the rows, `READINGS` among them.
    pipeline
        Profile, stores and clients.
    """
    length = windows.length
    near = windows.start - length * max(_NEAR, windows_of_silence(pipeline.profile) + 1)
    far = windows.start - pipeline.raw_retention
    begin = max(near, far)
    found = pipeline.store.neighbours(windows, fields, begin)
    wanted = {*devices, *found.after[READINGS]}
    missing = [name for name in fields if not wanted <= found.before[name].keys()]
    if far < begin and missing:
        earlier = pipeline.store.last_values(missing, far, begin)
        before = {
            name: {**earlier.get(name, {}), **values} for name, values in found.before.items()
        }
        return Neighbours(before, found.after)
    return found
