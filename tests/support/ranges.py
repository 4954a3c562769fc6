"""Ranges of one-minute windows, for the tests of the stages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace.models.window import WindowRange, floor

__all__ = ["MINUTE", "hours_ago", "windows"]

MINUTE = timedelta(minutes=1)


def windows(start: datetime, count: int) -> WindowRange:
    """Return the range of this number of windows."""
    return WindowRange(start, start + count * MINUTE, MINUTE)


def hours_ago(hours: float) -> datetime:
    """Return the start of a window this number of hours ago."""
    return floor(datetime.now(UTC) - timedelta(hours=hours), MINUTE)
