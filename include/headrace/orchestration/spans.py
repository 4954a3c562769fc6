"""Windows on their way from task to task."""

from __future__ import annotations

from typing import Any, TypeAlias

from headrace.models.window import WindowRange, parse_time, rfc3339
from headrace.profile import Profile

__all__ = ["Span", "span_of", "windows_of"]

#: ``start`` and ``stop`` in RFC 3339, and ``settled``: what an XCom can carry.
Span: TypeAlias = dict[str, Any]


def span_of(windows: WindowRange, *, settled: bool) -> Span:
    """Write windows as a span."""
    return {"start": rfc3339(windows.start), "stop": rfc3339(windows.stop), "settled": settled}


def windows_of(span: Span, profile: Profile) -> WindowRange:
    """Read the windows of a span."""
    return WindowRange(parse_time(span["start"]), parse_time(span["stop"]), profile.window)
