"""Markers of computed windows.

A computed window without readings has a marker; a missing window has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["NOT_PUBLISHED", "Marker"]

#: Value of `published` for a window whose rows are computed but not published.
NOT_PUBLISHED = -1


@dataclass(frozen=True)
class Marker:
    """The marker of a computed window.

    Parameters
    ----------
    start
        The window's start.
    settled
        Whether the sink had written all records that Kafka had at the window's end.
    rows
        Number of devices that reported.
    readings
        Number of raw readings of the rows.
    run
        The run that computed the window last or is computing it: ``<DAG id>/<run id>``.
    published
        Number of published rows, or `NOT_PUBLISHED`.
    revision
        Highest revision of these rows; above 0 if a row was corrected.
    """

    start: datetime
    settled: bool
    rows: int
    readings: int
    run: str
    published: int = NOT_PUBLISHED
    revision: int = 0
