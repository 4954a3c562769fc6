"""Rows as consumers have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.models.row import read_row, row_content, row_value, starts_within
from headrace.models.window import WindowRange
from headrace.profile import Profile

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
WINDOWS = WindowRange(NOON, NOON + 3 * MINUTE, MINUTE)


def value_of(profile: Profile, start: datetime, device: str = "generator1") -> bytes:
    row = {"_time": start, profile.id_field: device, "fuel": 1.5, "alarm": "refuel", "readings": 4}
    return row_value(row_content(profile, row), 2)


def test_a_row_is_read_as_it_was_written(profile: Profile) -> None:
    row = read_row(profile, value_of(profile, NOON))
    assert row.key == ("generator1", NOON)
    assert row.revision == 2
    assert row.content["window_end"] == "2026-01-31T12:01:00Z"
    assert row.content["fuel"] == 1.5
    assert row.content["region"] == "US"


@pytest.mark.parametrize(
    ("minutes", "within"), [(-1, False), (0, True), (2, True), (3, False), (-1440 * 40, False)]
)
def test_rows_of_a_range_are_told_from_others(
    profile: Profile, minutes: int, *, within: bool
) -> None:
    value = value_of(profile, NOON + minutes * MINUTE)
    assert starts_within(WINDOWS)(value) is within


@pytest.mark.parametrize("count", [1, 2, 60, 1440, 100_000])
@pytest.mark.parametrize(
    "begin", [NOON, NOON + 59 * MINUTE, NOON + timedelta(hours=11, minutes=59)]
)
def test_ranges_of_any_length_have_their_first_and_last_row(
    profile: Profile, begin: datetime, count: int
) -> None:
    within = starts_within(WindowRange(begin, begin + count * MINUTE, MINUTE))
    found = [within(value_of(profile, begin + number * MINUTE)) for number in (0, count - 1)]
    assert found == [True, True]
    assert not within(value_of(profile, begin - MINUTE))
    assert not within(value_of(profile, begin + count * MINUTE))


def test_a_device_can_t_pose_as_a_window(profile: Profile) -> None:
    device = '"window_start":"2026-01-31T12:00:00Z'
    assert not starts_within(WINDOWS)(value_of(profile, NOON - MINUTE, device))


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"window_start":"', b"\xff"])
def test_what_is_no_row_is_about_no_window(value: bytes) -> None:
    assert not starts_within(WINDOWS)(value)
