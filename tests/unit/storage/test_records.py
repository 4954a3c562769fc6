"""Foreign records are skipped, counted by topic and reason, and logged once each."""

from __future__ import annotations

from structlog.testing import capture_logs

from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.storage.kafka import Record
from headrace.storage.records import SkippedRecords, own_records


def _record(value: bytes, offset: int) -> Record:
    return Record("alarms", 0, offset, b"g1", value, 0, {})


def _number(record: Record) -> int:
    if not record.value:
        raise ForeignRecordError(ForeignReason.EMPTY)
    if not record.value.isdigit():
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, repr(record.value))
    return int(record.value)


def test_foreign_records_are_skipped_counted_and_logged_once() -> None:
    values = (b"1", b"hello", b"2", b"", b"world", b"3")
    records = [_record(value, offset) for offset, value in enumerate(values)]
    skipped = SkippedRecords()
    with capture_logs() as logs:
        assert list(own_records(records, _number, skipped)) == [1, 2, 3]
    assert skipped.counts == {
        ("alarms", ForeignReason.WRONG_VALUE): 2,
        ("alarms", ForeignReason.EMPTY): 1,
    }
    assert skipped.by_topic() == {"alarms": 3}
    assert [(line["event"], line["offset"]) for line in logs] == [
        ("foreign record skipped", 1),
        ("foreign record skipped", 3),
    ]
