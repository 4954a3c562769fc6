"""Fingerprints identify a bridge's messages in Kafka."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.storage.kafka import Record

__all__ = ["PACKET_IDS", "Fingerprint", "digest_of", "fingerprint_of"]

#: Packet ids are below this number.
PACKET_IDS = 65_536
#: Sequence numbers and stamps of Headrace's records are below this.
_MAX_NUMBER = 9 * 10**18
_NUMBER = re.compile(rb"[0-9]{1,19}")


def digest_of(payload: bytes) -> int:
    """Return a hash of the part of a payload that a dead letter keeps, valid in this process."""
    return hash(payload[:MAX_DEAD_LETTER_BYTES])


@dataclass(frozen=True, order=True)
class Fingerprint:
    """Identifies a message in Kafka. Fingerprints sort by age, the oldest first.

    Parameters
    ----------
    sequence
        The bridge's number of the message; 0 if an older version wrote the record.
    taken_ns
        Time stamp of the bridge's clock, which may have jumped.
    packet_id
        MQTT packet id.
    digest
        Hash of the kept part of the payload.
    """

    sequence: int
    taken_ns: int
    packet_id: int
    digest: int


def fingerprint_of(record: Record, bridge: bytes) -> Fingerprint | None:
    """Return the fingerprint of a record; `None` if it is another bridge's or never redelivered.

    Raises
    ------
    ForeignRecordError
        If the record has the bridge's name but is not from it.
    """
    headers = record.headers
    packet_id = headers.get("packet_id")
    taken = headers.get("taken_ns", headers.get("time_ns"))
    if headers.get("bridge") != bridge or packet_id is None or taken is None:
        return None
    if packet_id == b"0" or "source" in headers:
        # A message at QoS 0 is never redelivered. A dead letter with a source is from the sink.
        return None
    number = _number("packet_id", packet_id)
    if not 0 < number < PACKET_IDS:
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"packet_id is {number}")
    sequence = _number("seq", headers["seq"]) if "seq" in headers else 0
    return Fingerprint(sequence, _number("taken_ns", taken), number, digest_of(record.value))


def _number(name: str, text: bytes) -> int:
    """Parse a header with a number."""
    if not _NUMBER.fullmatch(text) or int(text) >= _MAX_NUMBER:
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"{name} is {text[:50]!r}")
    return int(text)
