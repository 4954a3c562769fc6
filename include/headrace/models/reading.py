"""Checks readings against the profile before the bridge accepts them."""

from __future__ import annotations

from datetime import timedelta

from headrace.models.deadletter import Reason, RejectedReadingError, full_size
from headrace.models.device_id import check_id
from headrace.models.device_time import InvalidTimeError, parse_device_time, shown
from headrace.models.reading_faults import check_utf8
from headrace.models.reading_schema import ReadingSchema
from headrace.profile import Profile

__all__ = ["ReadingCodec"]

#: A device with an unset clock sends times in 1970.
_UNSET_CLOCK_NS = 365 * 86_400 * 10**9
_CENTURY_SECONDS = 100 * 365 * 86_400


class ReadingCodec:
    """Decodes readings and checks them against a profile.

    Parameters
    ----------
    profile
        The kind of device.
    max_payload_bytes
        Longer payloads are rejected.
    max_age
        Maximum age of ``time``, the retention of raw readings.
    max_ahead
        Maximum time that ``time`` may be ahead of the clock.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        max_payload_bytes: int,
        max_age: timedelta,
        max_ahead: timedelta,
    ) -> None:
        self._id_field = profile.id_field
        self._max_payload_bytes = max_payload_bytes
        self._max_age_ns = max_age // timedelta(microseconds=1) * 1000
        self._max_ahead_ns = max_ahead // timedelta(microseconds=1) * 1000
        self._read = ReadingSchema(profile).read

    def check(self, payload: bytes, device: str, now_ns: int) -> int | None:
        """Check a reading from a device.

        Parameters
        ----------
        payload
            The payload of the MQTT message.
        device
            The id in the message's topic, checked by `check_id`.
        now_ns
            The bridge's clock, in nanoseconds since the epoch.

        Returns
        -------
        int or None
            The device's ``time`` in nanoseconds since the epoch, or `None` without ``time``.

        Raises
        ------
        RejectedReadingError
            If the reading cannot be stored.
        """
        if len(payload) > self._max_payload_bytes:
            raise self._too_large(full_size(payload))
        reading = self._read(payload)
        # msgspec does not check text in fields that it skips.
        if not payload.isascii():
            check_utf8(payload)
        claimed = getattr(reading, self._id_field)
        if claimed != device:
            detail = f"{self._id_field} is {claimed[:200]!r}, the topic says {device!r}"
            raise RejectedReadingError(Reason.ID_MISMATCH, detail)
        time = reading.time
        if time is None:
            return None
        try:
            time_ns = parse_device_time(time)
        except InvalidTimeError as exc:
            raise RejectedReadingError(Reason.TIME_INVALID, str(exc)) from None
        if time_ns < now_ns - self._max_age_ns:
            raise RejectedReadingError(Reason.TIME_TOO_OLD, self._too_old(time, time_ns), time_ns)
        if time_ns > now_ns + self._max_ahead_ns:
            detail = f"time {shown(time)} is {_ahead(time_ns - now_ns)} ahead of the bridge's clock"
            raise RejectedReadingError(Reason.TIME_AHEAD, detail, time_ns)
        return time_ns

    def check_id(self, device: str) -> None:
        """Check an id; see `headrace.models.device_id.check_id`."""
        check_id(device)

    def _too_large(self, size: int) -> RejectedReadingError:
        detail = f"{size} bytes, {self._max_payload_bytes} are allowed"
        return RejectedReadingError(Reason.TOO_LARGE, detail)

    def _too_old(self, time: int | str, time_ns: int) -> str:
        """Describe a time before the oldest kept reading, with the probable cause."""
        if time_ns < _UNSET_CLOCK_NS:
            return f"time {shown(time)} is in 1970 or before: is the device's clock set?"
        days = self._max_age_ns / (86_400 * 10**9)
        return f"time {shown(time)} is before the oldest kept reading: {days:g} days are kept"


def _ahead(nanoseconds: int) -> str:
    """Format by how much a time is ahead."""
    seconds = nanoseconds // 1_000_000_000
    if seconds >= _CENTURY_SECONDS:
        return "more than a century"
    return f"{seconds} s"
