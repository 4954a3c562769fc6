"""Goals of the rows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GOALS", "Goal"]


@dataclass(frozen=True)
class Goal:
    """A bound on the value or on its ratio to the peer's value.

    Parameters
    ----------
    bound
        The limit: a minimum, or a maximum if `at_most` is set.
    on_ratio
        Whether the bound applies to the ratio.
    at_most
        Whether lower values are better.
    unit
        Unit of the bound.
    """

    bound: float
    on_ratio: bool = False
    at_most: bool = False
    unit: str = ""

    def met(self, judged: float) -> bool:
        """Return whether a figure reaches the goal."""
        return judged <= self.bound if self.at_most else judged >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{'ratio ' if self.on_ratio else ''}{sign} {self.bound:,g} {self.unit}".rstrip()


#: Goals by row, in the order of the table.
GOALS = {
    "bridge.cpu": Goal(2.0, on_ratio=True),
    "bridge.rate": Goal(1.3, on_ratio=True),
    "bridge.limit": Goal(0.6),
    "sink.rate": Goal(1.5, on_ratio=True),
    "sink.limit": Goal(0.7),
    "path.rate": Goal(1.3, on_ratio=True),
    "downsample.hour": Goal(4.0, on_ratio=True),
    "fresh.p95": Goal(5.0, at_most=True, unit="s"),
    "heal.day": Goal(300.0, at_most=True, unit="s"),
    "growth": Goal(1.25, at_most=True),
    "devices": Goal(10_000),
    "memory": Goal(120.0, at_most=True, unit="MB"),
}
