"""Dead letters: rejected readings with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "MAX_DEAD_LETTER_BYTES",
    "Oversized",
    "Reason",
    "RejectedReadingError",
    "Rejection",
    "full_size",
]

#: Maximum length of a dead letter's payload; its header ``size`` has the full length.
MAX_DEAD_LETTER_BYTES = 64 * 1024


class Reason(StrEnum):
    """Reason for rejecting a reading, the header ``reason`` of a dead letter."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    ID_MISMATCH = "id_mismatch"
    ID_UNWRITABLE = "id_unwritable"
    TOO_LARGE = "too_large"
    TIME_INVALID = "time_invalid"
    TIME_TOO_OLD = "time_too_old"
    TIME_AHEAD = "time_ahead"
    TOO_MANY_DEVICES = "too_many_devices"
    MALFORMED_PACKET = "malformed_packet"
    KAFKA_REFUSED = "kafka_refused"
    INFLUX_REFUSED = "influx_refused"

    @property
    def meaning(self) -> str:
        """Meaning of the reason, for people and for the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NOT_JSON: "the payload is not JSON in UTF-8, or is nested too deeply",
    Reason.NOT_AN_OBJECT: "the payload is JSON, but not an object",
    Reason.MISSING_FIELD: "a field that the profile requires is missing",
    Reason.WRONG_TYPE: "a field, or the text on a status topic, is not what the profile says",
    Reason.NOT_FINITE: "a number is NaN, infinite, or too large for a 64-bit float",
    Reason.ID_MISMATCH: "the id in the payload is not the one in the topic",
    Reason.ID_UNWRITABLE: "the id is empty, too long, or cannot be written as a tag",
    Reason.TOO_LARGE: "the payload is longer than HEADRACE_MAX_PAYLOAD_BYTES",
    Reason.TIME_INVALID: "`time` is neither RFC 3339 nor whole epoch milliseconds",
    Reason.TIME_TOO_OLD: "`time` is before the oldest raw readings that are kept",
    Reason.TIME_AHEAD: "`time` is too far ahead of the bridge's clock",
    Reason.TOO_MANY_DEVICES: "the id is new, and HEADRACE_MAX_NEW_DEVICES or "
    "HEADRACE_MAX_DEVICES is reached",
    Reason.MALFORMED_PACKET: "the MQTT packet cannot be parsed; the payload is the packet after "
    "its length",
    Reason.KAFKA_REFUSED: "Kafka refuses the record; `detail` has its reason",
    Reason.INFLUX_REFUSED: "InfluxDB refuses the point; `detail` has its reason",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """Reason why a reading cannot be stored, as data.

    An exception must not be kept, because its traceback keeps every frame it passed through.

    Parameters
    ----------
    reason, detail
        Headers of the dead letter.
    time_ns
        Time of the device's clock, if the time is the reason.
    """

    reason: Reason
    detail: str
    time_ns: int | None = None


class RejectedReadingError(Exception):
    """A reading cannot be stored and becomes a dead letter.

    Not a `headrace.errors.HeadraceError`: nothing failed, and nothing is retried. Create a new
    one for each raise, and keep its `rejection` instead of the exception.

    Parameters
    ----------
    reason, detail, time_ns
        As in `Rejection`.
    """

    def __init__(self, reason: Reason, detail: str, time_ns: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.rejection = Rejection(reason, detail, time_ns)

    @property
    def reason(self) -> Reason:
        """Header ``reason`` of the dead letter."""
        return self.rejection.reason

    @property
    def detail(self) -> str:
        """Header ``detail`` of the dead letter."""
        return self.rejection.detail

    @property
    def time_ns(self) -> int | None:
        """Time of the device's clock, if the time is the reason."""
        return self.rejection.time_ns


class Oversized(bytes):
    """The first part of a payload that was too long to keep.

    Attributes
    ----------
    size
        Length of the whole payload.
    """

    size: int


def full_size(payload: bytes) -> int:
    """Return the original length of a payload."""
    return payload.size if isinstance(payload, Oversized) else len(payload)
