"""Dead letters as they stand on their topic, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.profile import Profile
from headrace.storage.kafka import Headers, Kafka, Record
from headrace.storage.kafka_log import read_topic

__all__ = ["REPLAYED", "Letter", "replayed_headers", "unanswered_letters"]

#: The header ``reason`` of a record that says: this letter was sent through again.
REPLAYED = "replayed"


@dataclass(frozen=True)
class Letter:
    """A dead letter.

    Parameters
    ----------
    record
        The record that it is.
    reason
        Why the reading was rejected.
    time_ns
        When the reading was made, or taken by the bridge if it did not say.
    whole
        Whether the payload was kept to its end.
    source
        The raw record that the sink rejected; empty if the bridge rejected the reading,
        so that it never became a raw record.
    """

    record: Record
    reason: str
    time_ns: int
    whole: bool
    source: str

    @property
    def place(self) -> str:
        """Where the letter stands."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"


def unanswered_letters(kafka: Kafka, profile: Profile) -> Iterator[Letter]:
    """Read the dead letters that were not sent through again.

    One that the sink wrote twice, because it died before it could commit, counts once.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    topic = profile.topics.dead_letter
    answered = {
        record.headers.get("source", b"").decode()
        for record in read_topic(kafka, topic)
        if record.headers.get("reason", b"").decode() == REPLAYED
    }
    sources: set[str] = set()
    for record in read_topic(kafka, topic):
        letter = _letter(record)
        if letter.reason == REPLAYED or letter.place in answered or letter.source in sources:
            continue
        if letter.source:
            sources.add(letter.source)
        yield letter


def _letter(record: Record) -> Letter:
    headers = record.headers
    stamp = headers.get("time_ns", b"")
    return Letter(
        record,
        headers.get("reason", b"").decode("utf-8", "replace"),
        int(stamp) if stamp.isdigit() else record.timestamp_ms * 1_000_000,
        headers.get("size", b"") == str(len(record.value)).encode(),
        headers.get("source", b"").decode("utf-8", "replace"),
    )


def replayed_headers(letter: Letter) -> Headers:
    """Headers of the record that answers a letter."""
    return [("reason", REPLAYED), ("source", letter.place)]
