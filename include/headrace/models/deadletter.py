"""Dead letters: readings that can't be stored, kept with the reason."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MAX_DEAD_LETTER_BYTES", "Oversized", "Reason", "RejectedReadingError", "full_size"]

#: So much of a rejected payload is kept; the header ``size`` tells how long it was.
MAX_DEAD_LETTER_BYTES = 64 * 1024


class Reason(StrEnum):
    """Why a reading was rejected: the header ``reason`` of a dead letter."""

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
    KAFKA_REFUSED = "kafka_refused"
    INFLUX_REFUSED = "influx_refused"

    @property
    def meaning(self) -> str:
        """What it says, for the documentation and for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NOT_JSON: "the payload is not JSON in UTF-8",
    Reason.NOT_AN_OBJECT: "the payload is JSON, but not an object",
    Reason.MISSING_FIELD: "a field that the profile requires is missing",
    Reason.WRONG_TYPE: "a field is not of the type that the profile says",
    Reason.NOT_FINITE: "a number is NaN, infinite, or too large for a 64-bit float",
    Reason.ID_MISMATCH: "the id in the payload is not the one in the topic",
    Reason.ID_UNWRITABLE: "the id is empty, too long, or can't be written as a tag",
    Reason.TOO_LARGE: "the payload is longer than HEADRACE_MAX_PAYLOAD_BYTES",
    Reason.TIME_INVALID: "`time` is neither RFC 3339 nor whole epoch milliseconds",
    Reason.TIME_TOO_OLD: "`time` is before the oldest raw readings that are kept",
    Reason.TIME_AHEAD: "`time` is too far ahead of the bridge's clock",
    Reason.KAFKA_REFUSED: "Kafka does not take the record; `detail` has its reason",
    Reason.INFLUX_REFUSED: "InfluxDB does not take the point; `detail` has its reason",
}


class RejectedReadingError(Exception):
    """A reading that can't be stored, whoever asks: it goes to the dead letters.

    Not a `headrace.errors.HeadraceError`: nothing failed, and nobody retries.

    Parameters
    ----------
    reason, detail
        What the dead letter says.
    time_ns
        What the device's clock showed, if that is what is wrong.
    """

    def __init__(self, reason: Reason, detail: str, time_ns: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.time_ns = time_ns


class Oversized(bytes):
    """The beginning of a payload that was too long to keep.

    Attributes
    ----------
    size
        Length of the whole payload.
    """

    size: int


def full_size(payload: bytes) -> int:
    """Length of a payload as it was sent."""
    return payload.size if isinstance(payload, Oversized) else len(payload)
