"""Windows are half-open, aligned and identified by their start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigurationError
from headrace.models.window import (
    WindowRange,
    floor,
    parse_time,
    pieces_of,
    ranges_of,
    rfc3339,
)

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def test_floor_returns_the_window_of_a_moment() -> None:
    assert floor(NOON, MINUTE) == NOON
    assert floor(NOON + timedelta(seconds=59, microseconds=999_999), MINUTE) == NOON
    assert floor(NOON + MINUTE, MINUTE) == NOON + MINUTE


def test_range_is_half_open() -> None:
    windows = WindowRange(NOON, NOON + 3 * MINUTE, MINUTE)
    assert list(windows.starts()) == [NOON, NOON + MINUTE, NOON + 2 * MINUTE]
    assert len(windows) == 3


def test_pieces_cover_the_range_once() -> None:
    windows = WindowRange(NOON, NOON + 130 * MINUTE, MINUTE)
    pieces = list(windows.pieces(60))
    assert [len(piece) for piece in pieces] == [60, 60, 10]
    assert [start for piece in pieces for start in piece.starts()] == list(windows.starts())


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (NOON + timedelta(seconds=1), NOON + MINUTE),
        (NOON, NOON + timedelta(seconds=61)),
        (NOON, NOON),
        (NOON + MINUTE, NOON),
        (NOON.replace(tzinfo=None), NOON + MINUTE),
    ],
)
def test_an_invalid_range_is_refused(start: datetime, stop: datetime) -> None:
    with pytest.raises(ConfigurationError):
        WindowRange(start, stop, MINUTE)


@given(st.sets(st.integers(0, 300)))
def test_consecutive_windows_are_joined_to_ranges(minutes: set[int]) -> None:
    starts = [NOON + minute * MINUTE for minute in minutes]
    ranges = ranges_of(starts, MINUTE)
    assert sorted(starts) == [start for item in ranges for start in item.starts()]
    assert all(left.stop < right.start for left, right in pairwise(ranges))


@given(st.sets(st.integers(0, 300)), st.integers(1, 70))
def test_pieces_contain_all_windows_within_the_maximum(minutes: set[int], most: int) -> None:
    starts = {NOON + minute * MINUTE for minute in minutes}
    pieces = pieces_of(starts, MINUTE, most)
    held = [start for piece in pieces for start in piece.starts()]
    assert starts <= set(held)
    assert len(held) == len(set(held))
    assert all(len(piece) <= most for piece in pieces)
    # The number is minimal: each piece begins outside the reach of the one before.
    assert all(right.start >= left.start + most * MINUTE for left, right in pairwise(pieces))


def test_times_are_read_and_written_in_utc() -> None:
    assert rfc3339(NOON) == "2026-06-01T12:00:00Z"
    assert parse_time("2026-06-01T14:00:00+02:00") == NOON
    assert rfc3339(NOON.astimezone(timezone(timedelta(hours=5)))) == "2026-06-01T12:00:00Z"


@pytest.mark.parametrize("text", ["noon", "2026-06-01T12:00:00", ""])
def test_times_without_a_zone_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="2026-01-31T12:00:00Z"):
        parse_time(text)
