"""Markers: what is known of a computed window.

A window that was computed and held no readings has a marker; a missing window has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["NOT_PUBLISHED", "Marker"]

#: `published` of a window whose rows were computed and not yet published.
NOT_PUBLISHED = -1


@dataclass(frozen=True)
class Marker:
    """The marker of a computed window.

    Parameters
    ----------
    start
        The window's start.
    settled
        Whether the sink had written everything that Kafka held when the window ended.
    rows
        Devices that reported.
    readings
        Raw readings that the rows were computed from.
    run
        The run that computed it last, or is about to: ``<DAG id>/<run id>``.
    published
        Number of published rows, or `NOT_PUBLISHED`.
    revision
        Highest revision of these rows: above 0 if one was corrected.
    """

    start: datetime
    settled: bool
    rows: int
    readings: int
    run: str
    published: int = NOT_PUBLISHED
    revision: int = 0
