"""Pauses between connections grow and vary; only a lasting connection resets them."""

from __future__ import annotations

from headrace.ingest.backoff import Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_up_to_the_longest() -> None:
    backoff = Backoff(0.2, 5.0, clock=Clock())
    limits = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    for limit in limits:
        assert limit / 2 <= backoff.failed() <= limit


def test_pauses_are_randomised() -> None:
    pauses = {Backoff(1.0, 5.0).failed() for _ in range(20)}
    assert len(pauses) > 10


def test_a_connection_that_is_lost_at_once_does_not_reset_the_pauses() -> None:
    clock = Clock()
    backoff = Backoff(0.2, 5.0, clock=clock)
    for _ in range(10):
        backoff.connected()
        clock.now += 9.0
        backoff.failed()
    backoff.connected()
    assert backoff.failed() >= 2.5


def test_a_connection_that_lasts_resets_the_pauses() -> None:
    clock = Clock()
    backoff = Backoff(0.2, 5.0, clock=clock)
    for _ in range(10):
        backoff.failed()
    backoff.connected()
    clock.now += 10.0
    assert backoff.failed() <= 0.2


def test_a_failed_attempt_after_a_good_connection_does_not_count_as_good() -> None:
    clock = Clock()
    backoff = Backoff(0.2, 5.0, clock=clock)
    backoff.connected()
    clock.now += 60.0
    backoff.failed()
    clock.now += 60.0
    assert backoff.failed() >= 0.2
