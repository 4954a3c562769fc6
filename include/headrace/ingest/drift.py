"""Devices with a wrong clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Drift", "DriftWatch"]

#: A device with a wrong clock is no longer listed after this time without a reading.
_MEMORY_SECONDS = 600.0
#: Maximum number of devices, which limits the memory and the length of the report.
_MAX_DEVICES = 10_000
_CENTURY_NS = 100 * 365 * 86_400 * 10**9


@dataclass(frozen=True)
class Drift:
    """Difference between a device's clock and the bridge's.

    Parameters
    ----------
    seconds
        Positive if the device's clock is behind the bridge's.
    received
        Time of its last reading, in seconds on a monotonic clock.
    """

    seconds: float
    received: float


class DriftWatch:
    """Lists the devices whose clock differs from the bridge's by more than a limit.

    Parameters
    ----------
    limit
        Larger differences are listed.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(self, limit: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_ns = limit // timedelta(microseconds=1) * 1000
        self._clock = clock
        self._drifting: dict[str, Drift] = {}

    def observe(self, device: str, time_ns: int, now_ns: int) -> None:
        """Compare the time of a device's reading with the bridge's clock."""
        lag_ns = now_ns - time_ns
        if -self._limit_ns <= lag_ns <= self._limit_ns:
            if device in self._drifting:
                del self._drifting[device]
            return
        if len(self._drifting) >= _MAX_DEVICES and device not in self._drifting:
            return
        # A JSON number can be larger than any float.
        seconds = min(max(lag_ns, -_CENTURY_NS), _CENTURY_NS) / 1e9
        # Buffered readings look late, too; the device's newest reading corrects this.
        self._drifting[device] = Drift(seconds, self._clock())

    def devices(self) -> dict[str, Drift]:
        """Return the devices with a wrong clock by id."""
        oldest = self._clock() - _MEMORY_SECONDS
        self._drifting = {
            device: drift for device, drift in self._drifting.items() if drift.received >= oldest
        }
        return dict(self._drifting)
