"""Readings: from the device's JSON to a line for InfluxDB."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Any

import msgspec

from headrace.models.deadletter import Reason, RejectedReadingError, full_size
from headrace.models.device_time import InvalidTimeError, epoch_ns, parse_device_time, shown
from headrace.models.reading_faults import check_utf8, explain
from headrace.profile import Profile

__all__ = ["ReadingCodec", "epoch_ns", "is_unwritable"]

#: Longer ids are refused: the id is part of every key and every point.
MAX_ID_CHARACTERS = 256

_TIME = "time"
#: Turns a flat JSON object into the fields of line protocol: ``"fuel": 5`` into ``fuel=5``.
_EQUALS = bytes.maketrans(b":", b"=")
_PUNCTUATION = b'{}" \t\r'
#: Ids with one of these, or with an unprintable character, take the slow path.
_UNUSUAL = re.compile(r"[=, {}]")
#: Characters that line protocol cannot carry in a tag value, escaped or not.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]|\\(?=[,= ]|$)")
_TAG_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
#: What msgspec raises for a payload that it refuses.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
#: A device whose clock was never set counts from 1970.
_UNSET_CLOCK_NS = 365 * 86_400 * 10**9
_CENTURY_SECONDS = 100 * 365 * 86_400


def is_unwritable(tag: str) -> bool:
    """Return whether a text cannot be the value of a tag in line protocol."""
    return _UNWRITABLE.search(tag) is not None


class ReadingCodec:
    """Checks readings against a profile and writes them as line protocol.

    A good reading takes one pass of msgspec. The reason for refusing a bad one is found
    afterwards, by `headrace.models.reading_faults`. A UTF-8 byte order mark is skipped.

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
            If the reading cannot be stored.
        """
        if len(payload) > self._max_payload_bytes:
            raise self._too_large(full_size(payload))
        reading = self._read(payload)
        # msgspec does not check the text of fields that it skips.
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
        """Check that an id can be a tag in InfluxDB and a key in Kafka.

        Raises
        ------
        RejectedReadingError
            If it cannot.
        """
        if not device:
            raise RejectedReadingError(Reason.ID_UNWRITABLE, "the id is empty")
        if len(device) > MAX_ID_CHARACTERS:
            detail = f"the id has {len(device)} characters, {MAX_ID_CHARACTERS} are allowed"
            raise RejectedReadingError(Reason.ID_UNWRITABLE, detail)
        if is_unwritable(device):
            detail = "the id has a control character, or a backslash where a tag cannot have one"
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
            If the payload is not a reading. The bridge produces only readings, but other
            clients of Kafka may write to the topic too.
        """
        lines = self.lines((payload,), (time_ns,))
        if lines is not None:
            return lines[0]
        reading = self._read(payload)
        device = self._id_of(reading)
        self.check_id(device)
        series = self._series + device.translate(_TAG_ESCAPES).encode()
        fields = self._fields_of(msgspec.structs.astuple(reading)).encode()
        return b"%b %b %b" % (series, fields, time_ns)

    def lines(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> list[bytes] | None:
        """Write many readings as lines at once, at a fraction of the cost of `line`.

        The line of most readings differs from their JSON only in punctuation. So msgspec
        checks all of them as one text, and the punctuation of that text is replaced.

        Parameters
        ----------
        payloads, times_ns
            What `line` takes, one entry for each reading.

        Returns
        -------
        list of bytes or None
            `None` if one of the payloads is not a reading, or needs the slow path. Use
            `line` to find out which one.
        """
        count = len(payloads)
        text = b"\n" + b"\n".join(payloads)
        colons = text.count(b":")
        if colons > count * self._most_colons:
            return None  # the cheapest check first: readings with more keys, such as `time`
        try:
            readings = self._decode_lines(text)
        except _UNDECODABLE:
            return None
        ids = list(map(self._id_of, readings))
        joined = "".join(ids)
        # Each reading has one colon for its id and one for each field. If there are no more
        # in all, no reading has another key, a key twice, or a colon within its id.
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
            return None  # in one of them the id is not the first key
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

    def _too_old(self, time: int | str, time_ns: int) -> str:
        """Say that a time is before the oldest kept reading, and what that suggests."""
        if time_ns < _UNSET_CLOCK_NS:
            return f"time {shown(time)} is in 1970 or before: is the device's clock set?"
        days = self._max_age_ns / (86_400 * 10**9)
        return f"time {shown(time)} is before the oldest kept reading: {days:g} days are kept"

    def _read(self, payload: bytes) -> Any:
        """Decode a payload, or raise the reason why it is not a reading."""
        try:
            return self._decode(payload)
        except _UNDECODABLE as exc:
            if not payload.startswith(codecs.BOM_UTF8):
                raise explain(payload, exc, self._profile) from None
        try:
            return self._decode(payload[len(codecs.BOM_UTF8) :])
        except _UNDECODABLE as exc:
            raise explain(payload, exc, self._profile) from None


def _ahead(nanoseconds: int) -> str:
    """Write how far a time lies ahead."""
    seconds = nanoseconds // 1_000_000_000
    if seconds >= _CENTURY_SECONDS:
        return "more than a century"
    return f"{seconds} s"
