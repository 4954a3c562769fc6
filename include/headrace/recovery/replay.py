"""Sends readings again: dead letters after their cause is fixed, or a range of event time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from headrace.errors import RefusedError
from headrace.ingest.reading_store import ReadingStore, Refused
from headrace.models.deadletter import Reason, RejectedReadingError, Rejection
from headrace.models.event_time import TIME_HEADER, event_time
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.recovery.letters import Letter, replayed_headers, unanswered_letters
from headrace.recovery.raw_records import records_between
from headrace.storage.kafka import Headers, Kafka
from headrace.storage.kafka_transaction import OutRecordWithHeaders, Publisher

__all__ = ["Replayed", "replay_dead_letters", "replay_range"]

_BATCH = 5000
#: Headers that are copied from a letter to its raw record.
_KEPT = ("topic", "bridge", "taken_ns")

#: Number of readings by outcome: ``sent``, ``written``, or ``left:`` with the reason.
Replayed = Counter[str]


def replay_dead_letters(
    kafka: Kafka,
    store: ReadingStore[Any],
    profile: Profile,
    codec: ReadingCodec,
    reason: str | None,
    max_ahead: timedelta,
    progress: Callable[[int], None],
) -> Replayed:
    """Send dead letters again, with their original time.

    A reading that the bridge rejected is sent to the raw topic. A reading that the sink
    rejected is already on the raw topic, so replay writes it to InfluxDB directly. A letter
    that would be rejected again is left unchanged.

    A raw record and the answer to its letter are published in one transaction. An
    interrupted replay can therefore be repeated: it sends nothing twice and skips nothing. A
    second replay at the same time ends the first.

    Parameters
    ----------
    kafka
        The cluster.
    store
        The store of readings, with the sink's rights.
    profile, codec
        The kind of device, with the current limits.
    reason
        Only letters with this reason; all if `None`.
    max_ahead
        How far ahead of the clock a reading's time may be. A reading that a bridge stamped
        with a faster clock gets the arrival time of its letter.
    progress
        Receives the number of letters read since the last call.

    Returns
    -------
    Replayed
        ``sent`` to the raw topic, ``written`` to InfluxDB, or left, by reason.

    Raises
    ------
    TransientError
        If a server is unavailable, or another replay began.
    """
    outcome: Replayed = Counter()
    # The new producer fences another replay, so read the letters after its creation.
    with Publisher(kafka, f"headrace-replay-{profile.name}") as publisher:
        replay = _LetterReplay(store, profile, codec, max_ahead, publisher, outcome)
        batch: list[Letter] = []
        for letter in unanswered_letters(kafka, profile):
            progress(1)
            if reason is None or letter.reason == reason:
                batch.append(letter)
            if len(batch) >= _BATCH:
                replay.send(batch)
                batch = []
        replay.send(batch)
    return +outcome


class _LetterReplay:
    """Sends batches of letters."""

    def __init__(
        self,
        store: ReadingStore[Any],
        profile: Profile,
        codec: ReadingCodec,
        max_ahead: timedelta,
        publisher: Publisher,
        outcome: Replayed,
    ) -> None:
        self._store = store
        self._profile = profile
        self._codec = codec
        self._max_ahead_ns = max_ahead // timedelta(microseconds=1) * 1000
        self._publisher = publisher
        self._outcome = outcome

    def send(self, letters: list[Letter]) -> None:
        acceptable: list[Letter] = []
        for letter in letters:
            try:
                acceptable.append(self._corrected(letter))
            except RejectedReadingError as exc:
                self._outcome[f"left: {exc.reason.value}"] += 1
        self._publish([letter for letter in acceptable if not letter.source], "sent")
        self._publish(self._write([letter for letter in acceptable if letter.source]), "written")

    def _corrected(self, letter: Letter) -> Letter:
        """Return a letter that would be accepted now, with the device's time if it has one.

        Raises
        ------
        RejectedReadingError
            If it would be rejected again.
        """
        if not letter.whole:
            detail = "the letter has only the first part of the payload"
            raise RejectedReadingError(Reason.TOO_LARGE, detail)
        if letter.source and not letter.dated:
            # The sink would reject the raw record again.
            raise RejectedReadingError(Reason.TIME_INVALID, "the raw record has no valid time")
        device = letter.record.key.decode("utf-8", "replace")
        self._codec.check_id(device)
        letter = self._within_the_clock(letter)
        # Limits of the reading's own time apply to the moment when the bridge received it.
        own_time = self._codec.check(letter.record.value, device, letter.time_ns)
        if own_time is None or letter.source:
            return letter
        return replace(letter, time_ns=own_time)

    def _within_the_clock(self, letter: Letter) -> Letter:
        """Correct the time of a letter if the clock of its bridge was ahead."""
        now_ns = time.time_ns()
        if letter.source or letter.time_ns <= now_ns + self._max_ahead_ns:
            return letter
        # The offset makes the time unique: all letters of a device are in one partition.
        arrived_ns = min(letter.record.timestamp_ms * 1_000_000, now_ns)
        return replace(letter, time_ns=arrived_ns + letter.record.offset % 1_000_000)

    def _write(self, letters: list[Letter]) -> list[Letter]:
        """Write readings to InfluxDB; return the letters of the accepted ones."""
        batch = self._store.new_batch()
        rejected = batch.add(
            [item.record.value for item in letters], [b"%d" % item.time_ns for item in letters]
        )
        letters = [item for number, item in enumerate(letters) if number not in rejected]
        (refused,) = self._store.write([batch])
        _count_left(self._outcome, rejected, refused)
        return [item for number, item in enumerate(letters) if number not in refused]

    def _publish(self, letters: list[Letter], done: str) -> None:
        """Publish the raw record of each letter, if there is none yet, and its answer.

        Kafka refuses a transaction as a whole, so the batch is halved until each refused letter is
        alone.
        """
        ranges = [letters]
        while ranges:
            some = ranges.pop()
            try:
                self._publisher.publish_with_headers(
                    [record for letter in some for record in self._records_of(letter)]
                )
            except RefusedError:
                if len(some) == 1:
                    self._outcome[f"left: {Reason.KAFKA_REFUSED}"] += 1
                else:
                    middle = len(some) // 2
                    ranges += [some[middle:], some[:middle]]
            else:
                self._outcome[done] += len(some)

    def _records_of(self, letter: Letter) -> list[OutRecordWithHeaders]:
        topics = self._profile.topics
        key = letter.record.key
        answer = (topics.dead_letter, key, b"", replayed_headers(letter))
        if letter.source:
            return [answer]
        kept = letter.record.headers
        headers: Headers = [("time_ns", str(letter.time_ns))]
        headers += [(name, kept[name]) for name in _KEPT if name in kept]
        # No packet id, because the broker does not redeliver this message.
        headers += [("packet_id", "0"), ("replayed", letter.place)]
        return [(topics.raw, key, letter.record.value, headers), answer]


def replay_range(
    kafka: Kafka,
    store: ReadingStore[Any],
    profile: Profile,
    start: datetime,
    stop: datetime,
    margin: timedelta,
    progress: Callable[[int], None],
) -> Replayed:
    """Write the readings of a range of event time to InfluxDB again, from Kafka.

    A stored reading is written to the same point again, which changes nothing. So an
    interrupted replay can be repeated.

    Parameters
    ----------
    start, stop
        Event time, ``[start, stop)``.
    margin
        How long before its event time a reading may arrive, see
        `headrace.recovery.raw_records.arrival_margin`.
    progress
        Receives the number of records read since the last call.

    Returns
    -------
    Replayed
        ``written``, or left, by reason.
    """
    outcome: Replayed = Counter()
    readings: list[tuple[bytes, bytes]] = []

    def flush() -> None:
        batch = store.new_batch()
        rejected = batch.add(*zip(*readings, strict=True)) if readings else {}
        (refused,) = store.write([batch])
        outcome["written"] += len(batch) - len(refused)
        _count_left(outcome, rejected, refused)
        readings.clear()

    for record, _ in records_between(kafka, profile, start, stop, margin, progress):
        try:
            time_ns = event_time(record.headers.get(TIME_HEADER), record.timestamp_ms)
            readings.append((record.value, time_ns))
        except RejectedReadingError as exc:
            outcome[f"left: {exc.reason.value}"] += 1
        if len(readings) >= _BATCH:
            flush()
    flush()
    return +outcome


def _count_left(
    outcome: Replayed, rejected: Mapping[int, Rejection], refused: Mapping[int, Refused]
) -> None:
    outcome.update(f"left: {item.reason.value}" for item in rejected.values())
    if refused:
        outcome[f"left: {Reason.INFLUX_REFUSED}"] += len(refused)
