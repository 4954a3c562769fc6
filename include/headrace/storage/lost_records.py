"""The records on the dead-letter topic that report what Kafka deleted."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.models.event_time import stamp_of
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.lost import KAFKA_DELETED, LostRecords
from headrace.storage.kafka import Headers

__all__ = ["lost_headers", "read_lost"]


def lost_headers(lost: LostRecords) -> Headers:
    """Return the headers of the record that reports this loss."""
    return [
        ("reason", KAFKA_DELETED),
        ("detail", lost.detail),
        ("source", f"{lost.topic}/{lost.partition}/{lost.start}"),
        ("offset_start", str(lost.start)),
        ("offset_stop", str(lost.stop)),
    ]


def read_lost(headers: Mapping[str, bytes], recorded_ms: int) -> LostRecords:
    """Parse the headers of a record that reports a loss.

    Raises
    ------
    ForeignRecordError
        If they are not those that `lost_headers` returns.
    """
    start, stop = stamp_of(headers.get("offset_start")), stamp_of(headers.get("offset_stop"))
    source = headers.get("source", b"").decode("utf-8", "replace")
    topic, _, place = source.partition("/")
    partition = stamp_of(place.partition("/")[0].encode())
    if start is None or stop is None or partition is None or start >= stop:
        detail = f"source {source[:100]!r} with an impossible range of offsets"
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, detail)
    detail = headers.get("detail", b"").decode("utf-8", "replace")
    return LostRecords(topic, partition, start, stop, detail, recorded_ms)
