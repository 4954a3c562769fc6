"""Refused ranges, and cutting ranges into pieces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigurationError, RawDataGoneError
from headrace.models.window import WindowRange
from headrace.stages.ranges import (
    MOST_PIECES,
    PIECE,
    check_range,
    cut_range,
    cut_windows,
    installed_at_problem,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
OLDEST = NOW - 30 * DAY


def windows(start: datetime, count: int, length: timedelta = MINUTE) -> WindowRange:
    return WindowRange(start, start + count * length, length)


@pytest.mark.parametrize(
    ("ahead", "length"), [(MINUTE, MINUTE), (40 * MINUTE, MINUTE), (HOUR, HOUR), (DAY, MINUTE)]
)
def test_a_range_that_is_not_over_is_refused(ahead: timedelta, length: timedelta) -> None:
    range_ = WindowRange(NOON - HOUR, NOON + ahead, length)
    with pytest.raises(ConfigurationError, match="into the future: choose a stop of 2026-06-01T12"):
        check_range(range_, NOW, OLDEST)


@pytest.mark.parametrize("days", [31, 50, 400])
def test_a_range_without_raw_readings_is_refused(days: int) -> None:
    with pytest.raises(RawDataGoneError, match="are kept from 2026-05-02T12:01:00Z on"):
        check_range(WindowRange(NOON - days * DAY, NOON, MINUTE), NOW, OLDEST)


def test_a_range_that_can_be_computed_passes() -> None:
    check_range(windows(NOON - 30 * DAY + MINUTE, 30 * 1440 - 1), NOW, OLDEST)


@given(st.integers(1, 600_000))
def test_pieces_cover_the_range_within_the_maximum_number(count: int) -> None:
    range_ = windows(NOON, count)
    pieces = cut_range(range_)
    assert len(pieces) <= MOST_PIECES
    assert (pieces[0].start, pieces[-1].stop) == (range_.start, range_.stop)
    assert sum(map(len, pieces)) == count
    # The pieces are not larger than necessary.
    assert count > PIECE * MOST_PIECES or all(len(piece) <= PIECE for piece in pieces)


def test_fifty_days_of_minutes_are_less_than_the_limit_of_airflow() -> None:
    range_ = windows(NOON - 50 * DAY, 50 * 1440)
    assert len(cut_range(range_)) == 400
    assert len(cut_windows(set(range_.starts()), MINUTE)) == 400


@given(st.sets(st.integers(0, 5000), max_size=200), st.integers(1, 20))
def test_pieces_of_single_windows_contain_all_of_them(minutes: set[int], most: int) -> None:
    starts = {NOON + minute * MINUTE for minute in minutes}
    pieces = cut_windows(starts, MINUTE, most)
    assert len(pieces) <= most
    assert starts <= {start for piece in pieces for start in piece.starts()}


@pytest.mark.parametrize("ahead", [timedelta(hours=2), 400 * DAY])
def test_an_installation_in_the_future_is_reported(ahead: timedelta) -> None:
    text = installed_at_problem(NOW + ahead, NOW)
    assert text is not None
    assert "HEADRACE_INSTALLED_AT" in text
    assert "ahead" in text


@pytest.mark.parametrize("age", [timedelta(0), DAY, 1000 * DAY, -timedelta(seconds=30)])
def test_an_installation_in_the_past_is_not_reported(age: timedelta) -> None:
    assert installed_at_problem(NOW - age, NOW) is None
