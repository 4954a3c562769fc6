"""Limits on new devices protect against a flood of ids."""

from __future__ import annotations

import tracemalloc

from headrace.ingest.devices import DeviceLimits


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def accepted(limits: DeviceLimits, first: int, count: int) -> int:
    return sum(limits.accept(b"d%d" % number) for number in range(first, first + count))


def test_new_devices_are_limited_per_minute() -> None:
    clock = Clock()
    limits = DeviceLimits(60, 1000, clock)
    assert accepted(limits, 0, 100) == 60
    clock.now += 10
    assert accepted(limits, 100, 100) == 10
    clock.now += 3600
    assert accepted(limits, 200, 100) == 60


def test_known_devices_are_accepted_beyond_the_limits() -> None:
    limits = DeviceLimits(10, 10, Clock())
    assert accepted(limits, 0, 20) == 10
    assert accepted(limits, 0, 10) == 10
    assert b"d9" in limits
    assert b"d10" not in limits


def test_the_total_number_of_devices_is_limited() -> None:
    clock = Clock()
    limits = DeviceLimits(1000, 50, clock)
    assert accepted(limits, 0, 100) == 50
    clock.now += 3600
    assert accepted(limits, 100, 100) == 0
    assert len(limits) == 50


def test_a_known_fleet_is_not_new_after_a_restart() -> None:
    limits = DeviceLimits(10, 1000, Clock())
    for number in range(500):
        limits.recall(b"d%d" % number)
    assert accepted(limits, 0, 500) == 500
    assert accepted(limits, 500, 100) == 10


def test_recalled_devices_are_limited_too() -> None:
    limits = DeviceLimits(10, 100, Clock())
    for number in range(500):
        limits.recall(b"d%d" % number)
    limits.recall(b"")
    limits.recall(b"x" * 2000)
    assert len(limits) == 100


def test_memory_does_not_depend_on_the_length_of_ids() -> None:
    tracemalloc.start()
    try:
        limits = DeviceLimits(10**6, 20_000, Clock())
        for number in range(60_000):
            limits.accept(b"%d" % number + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()
