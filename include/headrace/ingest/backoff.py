"""Growing pauses between attempts, which protect a failing server from many connections."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Pauses that grow with each failure and are shortened at random.

    A connection resets the pauses only if it lasted. Otherwise a server that accepts
    and then drops every connection would be retried without a pause.

    Parameters
    ----------
    first, longest
        Limits of a pause, in seconds.
    factor
        Ratio of each pause to the one before.
    good_after
        A connection that lasted this many seconds resets the pauses.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        factor: float = 2.0,
        good_after: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._good_after = good_after
        self._clock = clock
        self._random = random.SystemRandom()
        self._next = first
        self._connected_at: float | None = None

    def connected(self) -> None:
        """Record a successful connection."""
        self._connected_at = self._clock()

    def failed(self) -> float:
        """Record a failed attempt or a lost connection.

        Returns
        -------
        float
            Seconds to wait, from half of the current pause to all of it.
        """
        connected_at, self._connected_at = self._connected_at, None
        if connected_at is not None and self._clock() - connected_at >= self._good_after:
            self._next = self._first
        pause = self._next
        self._next = min(pause * self._factor, self._longest)
        return pause * self._random.uniform(0.5, 1.0)
