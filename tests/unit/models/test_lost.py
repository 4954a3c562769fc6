"""Reports of records that Kafka deleted before they were written."""

from __future__ import annotations

from headrace.models.lost import LostRecords, merged


def lost(start: int, stop: int, partition: int = 0) -> LostRecords:
    return LostRecords("raw", partition, start, stop, "deleted")


def test_a_range_reported_twice_counts_once() -> None:
    """A sink that restarts before its commit reports the gap again, possibly larger."""
    reported = [lost(3, 9), lost(20, 30), lost(3, 12), lost(3, 9, partition=1), lost(12, 14)]
    assert [(item.partition, item.start, item.stop) for item in merged(reported)] == [
        (0, 3, 12),
        (0, 12, 14),
        (0, 20, 30),
        (1, 3, 9),
    ]
