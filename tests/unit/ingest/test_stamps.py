"""Time stamps follow the system clock, and its jumps are reported."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.stamps import ClockJump, StampClock

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


class SteppingClock:
    """A system clock that the test sets, and a monotonic clock."""

    def __init__(self) -> None:
        self.wall = NOW
        self.monotonic = 5 * SECOND
        self.jumps: list[float] = []
        self.stamps = StampClock(lambda: self.wall, lambda: self.monotonic, self._note)

    def _note(self, jump: ClockJump) -> None:
        self.jumps.append(jump.seconds)

    def wait(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.monotonic += int(seconds * SECOND)

    def step(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


def test_stamps_of_one_moment_are_unique(clock: SteppingClock) -> None:
    assert [clock.stamps.take(3), clock.stamps.take(2), clock.stamps.take(1)] == [
        NOW,
        NOW + 3,
        NOW + 5,
    ]
    assert clock.jumps == []


def test_a_small_step_back_keeps_stamps_unique(clock: SteppingClock) -> None:
    first = clock.stamps.take(10)
    clock.step(-0.9)
    assert clock.stamps.take(10) == first + 10
    clock.wait(2)
    assert clock.stamps.take(1) == clock.wall
    assert clock.jumps == []


@pytest.mark.parametrize("seconds", [-2.5, 2, -1800, 1800, 10_800, -86_400, 30 * 86_400])
def test_stamps_follow_a_jump_at_once(clock: SteppingClock, seconds: float) -> None:
    clock.stamps.take(1)
    clock.wait(1)
    clock.step(seconds)
    assert clock.stamps.take(1) == clock.wall
    assert clock.jumps == [seconds]
    clock.wait(1)
    assert clock.stamps.take(1) == clock.wall
    assert clock.jumps == [seconds]


def test_stamps_recover_after_the_clock_was_briefly_ahead(clock: SteppingClock) -> None:
    clock.step(1800)
    clock.stamps.take(100)
    clock.wait(3)
    clock.step(-1800)
    assert clock.stamps.take(1) == clock.wall
    assert clock.jumps == [1800, -1800]


def test_many_small_steps_back_do_not_accumulate(clock: SteppingClock) -> None:
    for _ in range(10):
        clock.step(-0.7)
        assert 0 <= clock.stamps.take(1) - clock.wall <= SECOND


def test_a_restart_continues_after_the_newest_stamp(clock: SteppingClock) -> None:
    clock.stamps.continue_after(NOW + 500)
    assert clock.stamps.take(1) == NOW + 501
    clock.wait(1)
    assert clock.stamps.take(1) == clock.wall


@pytest.mark.parametrize("seconds", [2, 1800, 10_800])
def test_a_restart_ignores_stamps_ahead_of_the_clock(clock: SteppingClock, seconds: int) -> None:
    clock.stamps.continue_after(NOW + seconds * SECOND)
    assert clock.stamps.take(1) == clock.wall
    clock.stamps.continue_after(NOW + seconds * SECOND)
    assert clock.jumps == [-seconds]


def test_a_suspended_machine_is_reported_as_a_jump(clock: SteppingClock) -> None:
    """The monotonic clock stands still during suspension; the system clock is right after it."""
    clock.step(3600)
    clock.stamps.take(1)
    assert clock.jumps == [3600]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3 * SECOND), st.integers(-(10**14), 10**14), st.integers(1, 5))
    )
)
def test_stamps_are_within_a_second_of_the_clock(steps: list[tuple[int, int, int]]) -> None:
    clock = SteppingClock()
    for waited, stepped, count in steps:
        clock.wall += waited + stepped
        clock.monotonic += waited
        first = clock.stamps.take(count)
        assert 0 <= first - clock.wall <= SECOND


@given(
    steps=st.lists(st.tuples(st.integers(0, SECOND), st.integers(-(10**8), 0), st.integers(1, 99)))
)
def test_stamps_are_unique_unless_a_step_back_exceeds_a_second(
    steps: list[tuple[int, int, int]],
) -> None:
    clock = SteppingClock()
    behind = 0
    last = 0
    for waited, stepped, count in steps:
        clock.wall += waited + stepped
        clock.monotonic += waited
        behind = max(0, behind - waited - stepped)
        first = clock.stamps.take(count)
        if behind < SECOND:
            assert first > last
        last = first + count - 1
