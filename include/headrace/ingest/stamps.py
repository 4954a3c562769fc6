"""Time stamps for readings without `time`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ClockJump", "StampClock"]

#: Stamps can be ahead of the system clock by this much, so that they stay unique if that clock
#: steps back a little. A larger difference is a jump.
_TOLERANCE_NS = 1_000_000_000


@dataclass(frozen=True)
class ClockJump:
    """A jump of the system clock.

    Parameters
    ----------
    seconds
        How far the clock jumped; negative if it jumped back.
    at_ns
        Time after the jump, in nanoseconds since the epoch.
    """

    seconds: float
    at_ns: int


class StampClock:
    """Gives every message a time stamp that follows the system clock.

    Stamps are unique unless the system clock steps back by more than a second. They are never
    more than a second ahead of it. If the clock jumps, the stamps jump, too, so only messages
    that arrive while the clock is wrong get wrong stamps.

    Parameters
    ----------
    wall_ns
        The system clock, in nanoseconds since the epoch.
    monotonic_ns
        A monotonic clock, in nanoseconds. A jump changes the difference between the two
        clocks.
    on_jump
        Called with each jump.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        on_jump: Callable[[ClockJump], None] = lambda _: None,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self.on_jump = on_jump
        self._difference_ns = wall_ns() - monotonic_ns()
        self._next_ns = 0
        self._continued_ns = 0

    def take(self, count: int) -> int:
        """Reserve stamps one nanosecond apart; return the first."""
        now_ns = self.check()
        first_ns = now_ns
        if now_ns < self._next_ns <= now_ns + _TOLERANCE_NS:
            first_ns = self._next_ns
        self._next_ns = first_ns + count
        return first_ns

    def check(self) -> int:
        """Read the system clock, report a jump since the last check, and return the time."""
        now_ns = self._wall_ns()
        difference_ns = now_ns - self._monotonic_ns()
        jump_ns = difference_ns - self._difference_ns
        self._difference_ns = difference_ns
        if abs(jump_ns) > _TOLERANCE_NS:
            self.on_jump(ClockJump(jump_ns / 1e9, now_ns))
        return now_ns

    def continue_after(self, stamp_ns: int) -> None:
        """Continue after the newest stamp of an earlier process.

        A stamp far ahead of the clock is ignored, because the clock was wrong then or is wrong
        now. It is reported once as a jump.
        """
        if stamp_ns == self._continued_ns:
            return
        self._continued_ns = stamp_ns
        now_ns = self.check()
        if stamp_ns > now_ns + _TOLERANCE_NS:
            self.on_jump(ClockJump((now_ns - stamp_ns) / 1e9, now_ns))
        else:
            self._next_ns = max(self._next_ns, stamp_ns + 1)
