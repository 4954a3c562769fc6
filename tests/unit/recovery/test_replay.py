"""A replay that is interrupted anywhere and repeated sends everything exactly once."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self, cast

import pytest

from headrace.errors import RefusedError
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.recovery import letters as letters_module
from headrace.recovery import replay as module
from headrace.recovery.replay import replay_dead_letters, replay_range
from headrace.storage.influx import Influx
from headrace.storage.influx_readings import InfluxReadingStore
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_transaction import OutRecordWithHeaders
from tests.support.devices import reading

AHEAD = timedelta(minutes=5)
HOUR_NS = 3_600_000_000_000


class World:
    """Kafka's topics and InfluxDB, and a user who presses Ctrl-C during one of the calls.

    A transaction is kept as a whole or not at all, as Kafka does. The interrupt comes
    before the call has any effect or after it has its full effect.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.topics: dict[str, list[Record]] = {
            profile.topics.raw: [],
            profile.topics.dead_letter: [],
        }
        self.points: set[bytes] = set()
        self.calls = itertools.count()
        self.interrupt_at: float = float("inf")
        self.refuses: Callable[[OutRecordWithHeaders], bool] = lambda _: False

    def call(self, effect: Callable[[], None]) -> None:
        number = next(self.calls)
        if number == self.interrupt_at:
            raise KeyboardInterrupt
        effect()
        if number + 0.5 == self.interrupt_at:
            raise KeyboardInterrupt

    # The methods of a transactional producer.
    def __call__(self, kafka: Kafka, name: str) -> Self:
        assert kafka is not None
        assert name.startswith("headrace-replay-")
        return self

    def __enter__(self) -> Self:
        self.call(lambda: None)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is open."""

    def publish_with_headers(self, records: Sequence[OutRecordWithHeaders]) -> None:
        if any(map(self.refuses, records)):
            msg = "the record is too large"
            raise RefusedError(msg)
        self.call(lambda: self.append(*records))

    def append(self, *records: OutRecordWithHeaders) -> None:
        for topic, key, value, headers in records:
            kept = {
                name: item if isinstance(item, bytes) else str(item).encode()
                for name, item in headers
            }
            place = len(self.topics[topic])
            self.topics[topic].append(
                Record(topic, 0, place, key, value, time.time_ns() // 1_000_000, kept)
            )

    def read_topic(self, kafka: Kafka, topic: str) -> Iterator[Record]:
        del kafka
        self.call(lambda: None)
        yield from list(self.topics[topic])

    def write(self, bucket: str, lines: bytes) -> None:
        assert bucket == self.profile.buckets.raw
        self.call(lambda: self.points.update(lines.split(b"\n")))


@pytest.fixture
def world(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(profile)
    monkeypatch.setattr(module, "Publisher", world)
    monkeypatch.setattr(module, "_BATCH", 2)
    monkeypatch.setattr(letters_module, "read_topic", world.read_topic)
    return world


def add_letter(world: World, fuel: int, *, source: str = "", time_ns: int | None = None) -> None:
    headers: list[tuple[str, str | bytes | None]] = [("reason", "wrong_type")]
    value = json.dumps(reading("g1", fuel=fuel)).encode()
    headers += [("size", str(len(value))), ("time_ns", str(time_ns or time.time_ns()))]
    headers += [("source", source)] if source else []
    world.append((world.profile.topics.dead_letter, b"g1", value, headers))


def replay(world: World, codec: ReadingCodec) -> Counter[str]:
    store = InfluxReadingStore(cast("Influx", world), world.profile)
    return replay_dead_letters(
        cast("Kafka", world), store, world.profile, codec, None, AHEAD, lambda _: None
    )


def sent(world: World) -> list[float]:
    records = world.topics[world.profile.topics.raw]
    return sorted(json.loads(record.value)["fuel"] for record in records)


def written(world: World) -> list[bytes]:
    return sorted(line.rpartition(b" ")[0].rpartition(b"fuel=")[2] for line in world.points)


def fill(world: World) -> None:
    for number in range(5):
        add_letter(world, number)
        add_letter(world, 10 + number, source=f"raw/0/{number}")


def test_all_dead_letters_are_sent_and_answered(world: World, codec: ReadingCodec) -> None:
    fill(world)
    assert replay(world, codec) == {"sent": 5, "written": 5}
    assert replay(world, codec) == {}
    assert sent(world) == [0, 1, 2, 3, 4]
    assert len(world.points) == 5


def test_a_replay_repeated_after_any_interruption_is_complete(
    profile: Profile, codec: ReadingCodec, world: World
) -> None:
    fill(world)
    replay(world, codec)
    calls = next(world.calls)
    assert calls > 8
    for number in range(2 * calls):
        world.__init__(profile)  # type: ignore[misc]
        fill(world)
        world.interrupt_at = number / 2
        with pytest.raises(KeyboardInterrupt):
            replay(world, codec)
        world.interrupt_at = float("inf")
        replay(world, codec)
        assert sent(world) == [0, 1, 2, 3, 4], number
        assert len(world.points) == 5, number
        assert replay(world, codec) == {}


def test_a_range_replayed_after_any_interruption_is_complete(
    profile: Profile, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = profile.topics.raw

    def between(*_: object) -> Iterator[tuple[Record, int]]:
        for record in world.read_topic(cast("Kafka", None), raw):
            world.call(lambda: None)
            yield record, 0

    def run() -> Counter[str]:
        now = datetime.now(UTC)
        return replay_range(
            cast("Kafka", world),
            InfluxReadingStore(cast("Influx", world), profile),
            profile,
            now,
            now,
            AHEAD,
            lambda _: None,
        )

    monkeypatch.setattr(module, "records_between", between)
    monkeypatch.setattr(module, "_BATCH", 2)

    def begin() -> None:
        world.__init__(profile)  # type: ignore[misc]
        for number in range(5):
            value = json.dumps(reading(fuel=number)).encode()
            world.append((raw, b"generator1", value, [("time_ns", str(10**18 + number))]))

    begin()
    assert run() == {"written": 5}
    calls = next(world.calls)
    assert calls > 8
    for number in range(2 * calls):
        begin()
        world.interrupt_at = number / 2
        with pytest.raises(KeyboardInterrupt):
            run()
        world.interrupt_at = float("inf")
        assert run() == {"written": 5}, number
        assert len(world.points) == 5, number


def test_a_dead_letter_that_can_not_be_sent_does_not_block_others(
    world: World, codec: ReadingCodec
) -> None:
    fill(world)
    raw = world.profile.topics.raw
    world.refuses = lambda record: record[0] == raw and b'"fuel": 2' in record[2]
    assert replay(world, codec) == {"sent": 4, "written": 5, "left: kafka_refused": 1}
    assert sent(world) == [0, 1, 3, 4]
    assert replay(world, codec) == {"left: kafka_refused": 1}


def test_a_reading_stamped_in_the_future_gets_its_arrival_time(
    world: World, codec: ReadingCodec
) -> None:
    now_ns = time.time_ns()
    for fuel in range(3):
        add_letter(world, fuel, time_ns=now_ns + 3 * HOUR_NS + fuel)
    add_letter(world, 3, time_ns=now_ns)
    assert replay(world, codec) == {"sent": 4}
    stamps = [int(item.headers["time_ns"]) for item in world.topics[world.profile.topics.raw]]
    assert len(set(stamps)) == 4
    assert all(abs(stamp - now_ns) < HOUR_NS for stamp in stamps)
    assert stamps[3] == now_ns
