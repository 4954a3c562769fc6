"""Readings: from the device's JSON to a line for InfluxDB."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec

from headrace.models.deadletter import Reason, RejectedReadingError, full_size
from headrace.profile import Profile

__all__ = ["ReadingCodec", "epoch_ns"]

#: Ids longer than this are refused: an id is part of every key and every point.
MAX_ID_CHARACTERS = 256

_TIME = "time"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d:\d\d))", re.ASCII
)
#: What makes the fields of line protocol of a flat JSON object: ``"fuel": 5`` is ``fuel=5``.
_EQUALS = bytes.maketrans(b":", b"=")
_PUNCTUATION = b'{}" \t\r'
#: Besides what is not printable: what the id of a usual reading does not have.
_UNUSUAL = re.compile(r"[=, {}]")
#: Characters that line protocol can't carry in a tag value, escaped or not.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]|\\(?=[,= ]|$)")
_TAG_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
#: What msgspec raises for a payload that does not fit, depending on where it stumbles.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def epoch_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch, exact to the microsecond that a datetime holds."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


class ReadingCodec:
    """Checks readings against a profile and writes them as line protocol.

    One pass of msgspec does the work for a good reading. Why a bad one is bad is found
    out afterwards, by slower means.

    Parameters
    ----------
    profile
        The kind of device.
    max_payload_bytes
        Longer payloads are rejected.
    max_age
        How far back ``time`` may lie: as long as raw readings are kept.
    max_ahead
        How far ahead of the clock ``time`` may lie.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        max_payload_bytes: int,
        max_age: timedelta,
        max_ahead: timedelta,
    ) -> None:
        self._profile = profile
        self._id_field = profile.id_field
        self._max_payload_bytes = max_payload_bytes
        self._max_age_ns = max_age // timedelta(microseconds=1) * 1000
        self._max_ahead_ns = max_ahead // timedelta(microseconds=1) * 1000

        required = profile.required_fields
        self._optional = tuple(name for name in profile.fields if name not in required)
        struct = msgspec.defstruct(
            "Reading",
            [
                (profile.id_field, str),
                *((name, float) for name in required),
                *((name, float | None, None) for name in self._optional),
                (_TIME, int | str | None, None),
            ],
            frozen=True,
            gc=False,
        )
        #: A payload to an object with the id field, the fields and `time` as attributes.
        decoder = msgspec.json.Decoder(struct)
        self._decode: Callable[[bytes], Any] = decoder.decode
        self._decode_lines: Callable[[bytes], list[Any]] = decoder.decode_lines
        self._optional_position = 1 + len(required)
        self._most_colons = 1 + len(profile.fields)
        self._fields = ",".join(f"{name}=%r" for name in required)
        self._tag = f"{profile.id_field}=".encode()
        self._series = f"{profile.measurement},{profile.id_field}=".encode()
        self._id_of: Callable[[Any], str] = attrgetter(profile.id_field)

    def check(self, payload: bytes, device: str, now_ns: int) -> int | None:
        """Check a reading as it comes from a device.

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
            The device's own ``time`` in nanoseconds since the epoch, or `None` if it
            sent none.

        Raises
        ------
        RejectedReadingError
            If the reading can't be stored.
        """
        if len(payload) > self._max_payload_bytes:
            raise self._too_large(full_size(payload))
        try:
            reading = self._decode(payload)
        except _UNDECODABLE as exc:
            raise self._explain(payload, exc) from exc
        # msgspec does not look into what it passes over.
        if not payload.isascii():
            _check_utf8(payload)
        claimed = getattr(reading, self._id_field)
        if claimed != device:
            detail = f"{self._id_field} is {claimed[:200]!r}, the topic says {device!r}"
            raise RejectedReadingError(Reason.ID_MISMATCH, detail)
        time = reading.time
        if time is None:
            return None
        time_ns = _parse_time(time)
        if time_ns < now_ns - self._max_age_ns:
            raise RejectedReadingError(
                Reason.TIME_TOO_OLD, f"time {time!r} is before the oldest kept reading", time_ns
            )
        if time_ns > now_ns + self._max_ahead_ns:
            ahead = (time_ns - now_ns) // 1_000_000_000
            detail = f"time {time!r} is {ahead} s ahead"
            raise RejectedReadingError(Reason.TIME_AHEAD, detail, time_ns)
        return time_ns

    def check_id(self, device: str) -> None:
        """Check that an id can be a tag and a key.

        Raises
        ------
        RejectedReadingError
            If it can't.
        """
        if not device:
            raise RejectedReadingError(Reason.ID_UNWRITABLE, "the id is empty")
        if len(device) > MAX_ID_CHARACTERS:
            detail = f"the id has {len(device)} characters, {MAX_ID_CHARACTERS} are allowed"
            raise RejectedReadingError(Reason.ID_UNWRITABLE, detail)
        if _UNWRITABLE.search(device):
            detail = "the id has a control character or a backslash where a tag can't have one"
            raise RejectedReadingError(Reason.ID_UNWRITABLE, detail)

    def line(self, payload: bytes, time_ns: bytes) -> bytes:
        """Write a reading as one line of line protocol.

        Parameters
        ----------
        payload
            The reading, as the device sent it.
        time_ns
            Its time, in nanoseconds since the epoch: decimal text, as in Kafka's header.

        Raises
        ------
        RejectedReadingError
            If the payload is no reading. The bridge lets none through, but Kafka takes
            records from others, too.
        """
        lines = self.lines((payload,), (time_ns,))
        if lines is not None:
            return lines[0]
        try:
            reading = self._decode(payload)
        except _UNDECODABLE as exc:
            raise self._explain(payload, exc) from exc
        device = self._id_of(reading)
        self.check_id(device)
        series = self._series + device.translate(_TAG_ESCAPES).encode()
        fields = self._fields_of(msgspec.structs.astuple(reading)).encode()
        return b"%b %b %b" % (series, fields, time_ns)

    def lines(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> list[bytes] | None:
        """Write readings as lines as `line` does, all at once, which costs much less.

        A usual reading differs from its line in nothing but punctuation. So msgspec checks
        all of them in one text, and in that text the punctuation is exchanged.

        Parameters
        ----------
        payloads, times_ns
            What `line` takes, for one reading after the other; as many of each.

        Returns
        -------
        list of bytes or None
            `None` if one of them is no reading, or not a usual one. It takes `line` to
            tell which.
        """
        count = len(payloads)
        text = b"\n" + b"\n".join(payloads)
        colons = text.count(b":")
        if colons > count * self._most_colons:
            return None  # seen at once: a fleet whose every reading has its `time`, say
        try:
            readings = self._decode_lines(text)
        except _UNDECODABLE:
            return None
        ids = list(map(self._id_of, readings))
        joined = "".join(ids)
        # Each reading has at least a colon for its id and for each of its fields. So if there
        # are no more in all, none has another key, one twice, or a colon within its id.
        least = count * self._optional_position
        for name in self._optional:
            least += sum(getattr(reading, name) is not None for reading in readings)
        if (
            len(ids) != count
            or text.count(b"\n") != count
            or colons != least
            or b"\\" in text  # another spelling of anything
            or not all(ids)
            or len(max(ids, key=len)) > MAX_ID_CHARACTERS
            or not joined.isprintable()
            or _UNUSUAL.search(joined)
        ):
            return None
        _, *bare = text.translate(_EQUALS, _PUNCTUATION).split(b"\n" + self._tag)
        if len(bare) != count:
            return None  # an id that does not stand in front
        return [
            b"%b%b %b" % (self._series, content.replace(b",", b" ", 1), time_ns)
            for content, time_ns in zip(bare, times_ns, strict=True)
        ]

    def _fields_of(self, values: tuple[Any, ...]) -> str:
        """Write the fields of a line from the values of a reading."""
        first = self._optional_position
        fields = self._fields % values[1:first]
        for name, value in zip(self._optional, values[first:-1], strict=True):
            if value is not None:
                fields += f",{name}={value!r}"
        return fields

    def _too_large(self, size: int) -> RejectedReadingError:
        detail = f"{size} bytes, {self._max_payload_bytes} are allowed"
        return RejectedReadingError(Reason.TOO_LARGE, detail)

    def _explain(  # noqa: PLR0911 - one line a reason
        self, payload: bytes, error: Exception
    ) -> RejectedReadingError:
        """Find out why msgspec did not take a payload."""
        try:
            content = json.loads(payload)
        except (ValueError, RecursionError):
            return RejectedReadingError(Reason.NOT_JSON, str(error))
        if not isinstance(content, dict):
            return RejectedReadingError(Reason.NOT_AN_OBJECT, str(error))
        for name in (self._id_field, *self._profile.required_fields):
            if name not in content:
                return RejectedReadingError(Reason.MISSING_FIELD, f"{name} is missing")
        for name in self._profile.fields:
            if _is_not_finite(content.get(name)):
                return RejectedReadingError(Reason.NOT_FINITE, f"{name} is {content[name]}")
        if not isinstance(content.get(_TIME), int | str | None):
            return RejectedReadingError(Reason.TIME_INVALID, f"time is {content[_TIME]!r:.200}")
        if isinstance(error, msgspec.ValidationError):
            return RejectedReadingError(Reason.WRONG_TYPE, str(error))
        # Python's parser takes NaN, Infinity and some broken text that JSON does not have.
        return RejectedReadingError(Reason.NOT_JSON, str(error))


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as exc:
        raise RejectedReadingError(Reason.NOT_JSON, str(exc)) from exc


def _is_not_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isfinite(value)
    except OverflowError:
        return True


def _parse_time(time: int | str) -> int:
    """Read a device's ``time``: epoch milliseconds, or RFC 3339 to the nanosecond."""
    if isinstance(time, int):
        return time * 1_000_000
    match = _RFC3339.fullmatch(time)
    if match is None:
        raise RejectedReadingError(Reason.TIME_INVALID, f"time is {time[:200]!r}")
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{offset or '+00:00'}")
    except ValueError as exc:
        raise RejectedReadingError(Reason.TIME_INVALID, f"time {time[:200]!r}: {exc}") from exc
    return epoch_ns(moment) + int((fraction or "")[:9].ljust(9, "0"))
