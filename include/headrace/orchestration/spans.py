"""Ranges of windows in the form that tasks exchange."""

from __future__ import annotations

from typing import Any, TypeAlias

from headrace.models.window import WindowRange, parse_time, rfc3339
from headrace.profile import Profile

__all__ = ["Span", "span_of", "windows_of"]

#: ``start`` and ``stop`` in RFC 3339, and ``settled``: values that fit into an XCom.
Span: TypeAlias = dict[str, Any]


def span_of(windows: WindowRange, *, settled: bool) -> Span:
    """Convert windows to a span."""
    return {"start": rfc3339(windows.start), "stop": rfc3339(windows.stop), "settled": settled}


def windows_of(span: Span, profile: Profile) -> WindowRange:
    """Convert a span to windows."""
    return WindowRange(parse_time(span["start"]), parse_time(span["stop"]), profile.window)
