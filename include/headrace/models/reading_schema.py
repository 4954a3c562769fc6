"""Decodes payloads of readings according to a profile."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from headrace.models.reading_faults import explain
from headrace.profile import Profile

__all__ = ["UNDECODABLE", "ReadingSchema"]

_TIME = "time"
#: Errors of msgspec for a refused payload.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ReadingSchema:
    """Decodes readings to objects with the id field, the fields and `time` as attributes.

    A good reading takes one pass of msgspec. The reason for refusing a bad one is found
    afterwards, by `headrace.models.reading_faults`.

    Parameters
    ----------
    profile
        The kind of device.

    Attributes
    ----------
    required, optional
        Names of the required and of the optional fields. In an object they follow the id in this
        order.
    decode, decode_lines
        Decode a payload, and payloads with one on each line; raise one of `UNDECODABLE`.
    id_of
        Returns the id of a decoded reading.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.required = tuple(profile.required_fields)
        self.optional = tuple(name for name in profile.fields if name not in self.required)
        struct = msgspec.defstruct(
            "Reading",
            [
                (profile.id_field, str),
                *((name, float) for name in self.required),
                *((name, float | None, None) for name in self.optional),
                (_TIME, int | str | None, None),
            ],
            frozen=True,
            gc=False,
        )
        decoder = msgspec.json.Decoder(struct)
        self.decode: Callable[[bytes], Any] = decoder.decode
        self.decode_lines: Callable[[bytes], list[Any]] = decoder.decode_lines
        self.id_of: Callable[[Any], str] = attrgetter(profile.id_field)

    def read(self, payload: bytes) -> Any:
        """Decode a payload. A UTF-8 byte order mark is skipped.

        Raises
        ------
        RejectedReadingError
            If it is not a reading.
        """
        try:
            return self.decode(payload)
        except UNDECODABLE as exc:
            if not payload.startswith(codecs.BOM_UTF8):
                raise explain(payload, exc, self._profile) from None
        try:
            return self.decode(payload[len(codecs.BOM_UTF8) :])
        except UNDECODABLE as exc:
            raise explain(payload, exc, self._profile) from None
