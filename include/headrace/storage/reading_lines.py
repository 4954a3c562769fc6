"""Encodes payloads of readings as line protocol, many at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.models.deadletter import RejectedReadingError, Rejection
from headrace.models.device_id import MAX_ID_CHARACTERS, check_id
from headrace.models.reading_schema import UNDECODABLE, ReadingSchema
from headrace.profile import Profile
from headrace.storage.line_protocol import escape_tag

__all__ = ["LineBatch", "LineEncoder"]

#: Number of readings whose lines are made together. If one of them is unusual, fewer are tried
#: together, and those that still contain it are handled one by one.
_AT_ONCE = 100
_FEW = 10

#: Converts a flat JSON object to the fields of line protocol: ``"fuel": 5`` to ``fuel=5``.
_EQUALS = bytes.maketrans(b":", b"=")
_PUNCTUATION = b'{}" \t\r'
#: Ids with one of these, or with an unprintable character, take the slow path.
_UNUSUAL = re.compile(r"[=, {}]")


class LineEncoder:
    """Writes readings as lines of line protocol.

    Parameters
    ----------
    profile
        The kind of device.
    """

    def __init__(self, profile: Profile) -> None:
        self._schema = schema = ReadingSchema(profile)
        self._decode_lines = schema.decode_lines
        self._id_of = schema.id_of
        self._optional = schema.optional
        self._optional_position = 1 + len(schema.required)
        self._most_colons = 1 + len(profile.fields)
        self._fields = ",".join(f"{name}=%r" for name in schema.required)
        self._tag = f"{profile.id_field}=".encode()
        self._series = f"{profile.measurement},{profile.id_field}=".encode()

    def line(self, payload: bytes, time_ns: bytes) -> bytes:
        """Write a reading as one line.

        Parameters
        ----------
        payload
            The payload of the reading.
        time_ns
            Event time in nanoseconds since the epoch, as decimal text.

        Raises
        ------
        RejectedReadingError
            If the payload is not a reading. The bridge produces only readings, but other
            clients of Kafka may write to the topic too.
        """
        lines = self.lines((payload,), (time_ns,))
        if lines is not None:
            return lines[0]
        reading = self._schema.read(payload)
        device = self._id_of(reading)
        check_id(device)
        series = self._series + escape_tag(device).encode()
        fields = self._fields_of(msgspec.structs.astuple(reading)).encode()
        return b"%b %b %b" % (series, fields, time_ns)

    def lines(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> list[bytes] | None:
        """Encode many readings at once, at a fraction of the cost of `line`.

        The line of most readings differs from their JSON only in punctuation. So msgspec
        checks all of them as one text, and the punctuation of that text is replaced.

        Parameters
        ----------
        payloads, times_ns
            Arguments of `line`, one entry per reading.

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
        except UNDECODABLE:
            return None
        ids = list(map(self._id_of, readings))
        joined = "".join(ids)
        # Each reading has one colon for its id and one for each field. If there are no other
        # colons, no reading has another key, a duplicate key, or a colon in its id.
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


class LineBatch:
    """Readings as lines of line protocol.

    Only the lines are kept: they take less memory than the readings.

    Attributes
    ----------
    lines
        One line a reading.
    """

    def __init__(self, encoder: LineEncoder) -> None:
        self.lines: list[bytes] = []
        self._encoder = encoder

    def __len__(self) -> int:
        """Number of readings."""
        return len(self.lines)

    def add(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> dict[int, Rejection]:
        """Add readings; see `headrace.ingest.reading_store.ReadingBatch`."""
        rejected: dict[int, Rejection] = {}
        self._add(payloads, times_ns, 0, _AT_ONCE, rejected)
        return rejected

    def _add(
        self,
        payloads: Sequence[bytes],
        times_ns: Sequence[bytes],
        first: int,
        at_once: int,
        rejected: dict[int, Rejection],
    ) -> None:
        for begin in range(0, len(payloads), at_once):
            some, times = payloads[begin : begin + at_once], times_ns[begin : begin + at_once]
            lines = self._encoder.lines(some, times)
            if lines is not None:
                self.lines += lines
            elif at_once > _FEW:
                # One of them is unusual: most of the others still fit into groups.
                self._add(some, times, first + begin, _FEW, rejected)
            else:
                self._add_each(some, times, first + begin, rejected)

    def _add_each(
        self,
        payloads: Sequence[bytes],
        times_ns: Sequence[bytes],
        first: int,
        rejected: dict[int, Rejection],
    ) -> None:
        for index, (payload, time_ns) in enumerate(zip(payloads, times_ns, strict=True), first):
            try:
                self.lines.append(self._encoder.line(payload, time_ns))
            except RejectedReadingError as exc:
                rejected[index] = exc.rejection
