"""Raw records that Kafka deleted before the sink wrote them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["KAFKA_DELETED", "LostRecords", "merged"]

#: The header ``reason`` of a record on the dead-letter topic that reports lost records. The
#: record has no payload and is not a dead letter, because no reading can be sent again.
KAFKA_DELETED = "kafka_deleted"


@dataclass(frozen=True, order=True)
class LostRecords:
    """A range of offsets whose records were deleted before they were written to InfluxDB.

    Parameters
    ----------
    topic, partition
        Topic and partition of the records.
    start, stop
        Their offsets, ``[start, stop)``. Some of the offsets may not have had a record.
    detail
        How the loss was detected.
    recorded_ms
        Time of the report, in milliseconds since the epoch; 0 before it.
    """

    topic: str
    partition: int
    start: int
    stop: int
    detail: str = ""
    recorded_ms: int = 0

    @property
    def offsets(self) -> int:
        """Number of offsets, which is the maximum number of lost records."""
        return self.stop - self.start

    def overlaps(self, other: LostRecords) -> bool:
        """Return whether both ranges have an offset in common."""
        return (
            self.partition == other.partition
            and self.start < other.stop
            and other.start < self.stop
        )

    def as_dict(self) -> dict[str, str | int]:
        """Return the object for JSON output."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "start": self.start,
            "stop": self.stop,
            "detail": self.detail,
        }


def merged(lost: Iterable[LostRecords]) -> list[LostRecords]:
    """Join overlapping ranges, because a restarted sink can report the same records again."""
    joined: list[LostRecords] = []
    for item in sorted(lost):
        last = joined[-1] if joined else None
        if last and last.topic == item.topic and last.overlaps(item):
            joined[-1] = replace(last, stop=max(last.stop, item.stop))
        else:
            joined.append(item)
    return joined
