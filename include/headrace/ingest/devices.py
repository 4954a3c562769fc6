"""Limits on how many device ids a bridge accepts from publishers."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from headrace.models.device_id import MAX_ID_CHARACTERS

__all__ = ["DeviceLimits"]

_log = structlog.get_logger(__name__)

_MINUTE = 60.0
#: Maximum length of an id, in bytes of UTF-8.
_MAX_ID_BYTES = 4 * MAX_ID_CHARACTERS


class DeviceLimits:
    """Tracks the accepted device ids and limits new ones.

    It keeps only a hash of each id, so the memory does not depend on the length of ids.

    Parameters
    ----------
    per_minute
        Number of new ids accepted per minute.
    in_all
        Total number of ids accepted until the bridge is restarted.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(
        self,
        per_minute: int = 10_000,
        in_all: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._in_all = in_all
        self._clock = clock
        self._known: set[int] = set()
        self._allowance = float(per_minute)
        self._filled_at = clock()
        self._logged_at = -_MINUTE

    def __len__(self) -> int:
        """Number of accepted ids."""
        return len(self._known)

    def __contains__(self, key: bytes) -> bool:
        """Whether an id is accepted already."""
        return hash(key) in self._known

    def recall(self, key: bytes) -> None:
        """Accept an id that already has a record in Kafka."""
        if len(self._known) < self._in_all and 0 < len(key) <= _MAX_ID_BYTES:
            self._known.add(hash(key))

    def accept(self, key: bytes) -> bool:
        """Accept an id, unless it is new and a limit is reached.

        Parameters
        ----------
        key
            The id as the key of its records.
        """
        number = hash(key)
        if number in self._known:
            return True
        if len(self._known) >= self._in_all or not self._take_allowance():
            self._log_refusal(key)
            return False
        self._known.add(number)
        return True

    @property
    def limits(self) -> str:
        """Return both limits as text for a dead letter."""
        return (
            f"{self._per_minute} new device ids a minute (HEADRACE_MAX_NEW_DEVICES) and "
            f"{self._in_all} in all (HEADRACE_MAX_DEVICES) are accepted"
        )

    def _take_allowance(self) -> bool:
        """Use one of the new ids that are left in this minute."""
        now = self._clock()
        refill = (now - self._filled_at) * self._per_minute / _MINUTE
        self._filled_at = now
        self._allowance = min(float(self._per_minute), self._allowance + refill)
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _log_refusal(self, key: bytes) -> None:
        """Log the first refused id of each minute."""
        now = self._clock()
        if now - self._logged_at >= _MINUTE:
            self._logged_at = now
            _log.warning(
                "new device refused: limit reached",
                device=key.decode("utf-8", "replace"),
                devices=len(self._known),
                max_new_devices=self._per_minute,
                max_devices=self._in_all,
            )
