"""Sending readings through again: dead letters once their cause is mended, or a stretch of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from confluent_kafka import KafkaError, Message

from headrace.errors import HeadraceError, ServerTimeoutError
from headrace.ingest.batch_writer import write_halving
from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.recovery.letters import Letter, replayed_headers, unanswered_letters
from headrace.storage.influx import Influx
from headrace.storage.kafka import Headers, Kafka, Record, error_of
from headrace.storage.kafka_log import offsets_at, read_topic

__all__ = ["Replayed", "records_between", "replay_dead_letters", "replay_range"]

_BATCH = 5000
_CONFIRM_SECONDS = 30.0

#: Outcome to number: ``sent``, ``written``, or why something was left where it is.
Replayed = Counter[str]


def replay_dead_letters(
    kafka: Kafka,
    influx: Influx,
    profile: Profile,
    codec: ReadingCodec,
    reason: str | None,
    progress: Callable[[int], None],
) -> Replayed:
    """Send dead letters through again, with their original time.

    What the bridge had rejected goes to the raw topic, and from there on as ever. What
    InfluxDB had refused stands in the raw topic already, so it is written from here. A
    letter that would be rejected again is left where it is.

    Parameters
    ----------
    kafka, influx
        Clients; InfluxDB with the sink's token.
    profile, codec
        The kind of device, and its limits as they are now.
    reason
        Only letters of this reason; all if `None`.
    progress
        Told how many letters have been looked at since it was last told.

    Returns
    -------
    Replayed
        ``sent`` to the raw topic, ``written`` to InfluxDB, or left, by reason.

    Raises
    ------
    TransientError
        If a server is away. What was sent is noted, and not sent again the next time.
    """
    outcome: Replayed = Counter()
    batch: list[Letter] = []
    for letter in unanswered_letters(kafka, profile):
        progress(1)
        if reason is None or letter.reason == reason:
            batch.append(letter)
        if len(batch) >= _BATCH:
            outcome += _replay_letters(batch, kafka, influx, profile, codec)
            batch = []
    outcome += _replay_letters(batch, kafka, influx, profile, codec)
    return outcome


def _replay_letters(
    letters: list[Letter], kafka: Kafka, influx: Influx, profile: Profile, codec: ReadingCodec
) -> Replayed:
    outcome: Replayed = Counter()
    good: list[Letter] = []
    for letter in letters:
        try:
            good.append(_mended(letter, codec))
        except RejectedReadingError as exc:
            outcome[f"left: {exc.reason.value}"] += 1
    to_kafka = [letter for letter in good if not letter.source]
    to_influx = [letter for letter in good if letter.source]
    _produce(kafka, [_raw_record(letter, profile) for letter in to_kafka])
    outcome["sent"] += len(to_kafka)
    lines = [codec.line(letter.record.value, b"%d" % letter.time_ns) for letter in to_influx]
    refused = write_halving(lambda text: influx.write(profile.buckets.raw, text), lines)
    outcome["written"] += len(lines) - len(refused)
    if refused:
        outcome["left: influx_refused"] += len(refused)
    written = [letter for number, letter in enumerate(to_influx) if number not in refused]
    topic = profile.topics.dead_letter
    _produce(
        kafka,
        [
            (topic, b"", letter.record.key, None, replayed_headers(letter))
            for letter in (*to_kafka, *written)
        ],
    )
    return +outcome


def _mended(letter: Letter, codec: ReadingCodec) -> Letter:
    """A letter that would be taken now, dated with the device's own time if it has one.

    Raises
    ------
    RejectedReadingError
        If it would be rejected again.
    """
    if not letter.whole:
        detail = "only the beginning of the payload was kept"
        raise RejectedReadingError(Reason.TOO_LARGE, detail)
    device = letter.record.key.decode("utf-8", "replace")
    codec.check_id(device)
    # As if the bridge took it when it did: limits of time are about that moment.
    own_time = codec.check(letter.record.value, device, letter.time_ns)
    if own_time is None or letter.source:
        return letter
    return replace(letter, time_ns=own_time)


_OutRecord = tuple[str, bytes, bytes, int | None, Headers]


def _raw_record(letter: Letter, profile: Profile) -> _OutRecord:
    kept = letter.record.headers
    headers: Headers = [("time_ns", str(letter.time_ns))]
    headers += [(name, kept[name]) for name in ("topic", "bridge", "taken_ns") if name in kept]
    # The packet id stays behind: the broker will not send this one again.
    headers += [("packet_id", "0"), ("replayed", letter.place)]
    stamp = letter.time_ns // 1_000_000
    return profile.topics.raw, letter.record.value, letter.record.key, stamp, headers


def _produce(kafka: Kafka, records: list[_OutRecord]) -> None:
    """Produce records, and wait until Kafka has confirmed every one."""
    if not records:
        return
    failures: list[HeadraceError] = []
    confirmed = 0

    def report(error: KafkaError | None, _: Message) -> None:
        nonlocal confirmed
        if error is None:
            confirmed += 1
        else:
            failures.append(error_of(error))

    producer = kafka.producer(message_timeout_ms=int(_CONFIRM_SECONDS * 1000))
    for topic, value, key, stamp, headers in records:
        # 0: Kafka's client takes the time of now.
        producer.produce(
            topic, value, key, headers=headers, on_delivery=report, timestamp=stamp or 0
        )
        producer.poll(0)
    producer.flush(_CONFIRM_SECONDS + 5)
    if failures:
        raise failures[0]
    if confirmed < len(records):
        msg = f"Kafka confirmed only {confirmed} of {len(records)} records in time"
        raise ServerTimeoutError(msg)


def replay_range(
    kafka: Kafka,
    influx: Influx,
    profile: Profile,
    codec: ReadingCodec,
    start: datetime,
    stop: datetime,
    progress: Callable[[int], None],
) -> Replayed:
    """Write the readings of a stretch of time to InfluxDB again, from Kafka.

    Every point has its own place, so where nothing was missing nothing changes.

    Parameters
    ----------
    start, stop
        Event time, ``[start, stop)``.
    progress
        Told how many records have been looked at since it was last told.

    Returns
    -------
    Replayed
        ``written``, or what was left, by reason.
    """
    outcome: Replayed = Counter()
    lines: list[bytes] = []

    def flush() -> None:
        refused = write_halving(lambda text: influx.write(profile.buckets.raw, text), lines)
        outcome["written"] += len(lines) - len(refused)
        if refused:
            outcome["left: influx_refused"] += len(refused)
        lines.clear()

    for record, time_ns in records_between(kafka, profile, start, stop, progress):
        try:
            lines.append(codec.line(record.value, b"%d" % time_ns))
        except RejectedReadingError as exc:
            outcome[f"left: {exc.reason.value}"] += 1
        if len(lines) >= _BATCH:
            flush()
    flush()
    return outcome


def records_between(
    kafka: Kafka,
    profile: Profile,
    start: datetime,
    stop: datetime,
    progress: Callable[[int], None],
) -> Iterable[tuple[Record, int]]:
    """Raw records whose event time lies in ``[start, stop)``, with that time in nanoseconds.

    A late reading stands among newer ones, so the topic is read to its end.
    """
    topic = profile.topics.raw
    consumer = kafka.consumer("headrace-reader")
    try:
        begin = offsets_at(consumer, topic, start)
    finally:
        consumer.close()
    first, last = int(start.timestamp() * 1000), int(stop.timestamp() * 1000)
    for record in read_topic(kafka, topic, begin):
        progress(1)
        if first <= record.timestamp_ms < last:
            yield record, record_time_ns(record)


def record_time_ns(record: Record) -> int:
    """Event time of a raw record."""
    stamp = record.headers.get("time_ns", b"")
    return int(stamp) if stamp.isdigit() else record.timestamp_ms * 1_000_000
