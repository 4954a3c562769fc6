"""The explanation of a wrong `time` has its probable format and the right one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.device_time import epoch_ns, parse_device_time, shown, unusable_time
from headrace.models.reading import ReadingCodec
from headrace.models.window import parse_time
from tests.support.devices import reading

NOW_NS = epoch_ns(parse_time("2026-11-26T18:00:00Z"))


def rejected(codec: ReadingCodec, time: Any) -> RejectedReadingError:
    payload = json.dumps(reading(time=time)).encode()
    with pytest.raises(RejectedReadingError) as error:
        codec.check(payload, "generator1", NOW_NS)
    return error.value


@pytest.mark.parametrize(
    ("time", "says"),
    [
        (1793914326, "epoch seconds: send milliseconds or RFC 3339"),
        (1795716000, "epoch seconds"),
        (1793914326086000, "epoch microseconds: send milliseconds"),
        (1793914326086000000, "epoch nanoseconds: send milliseconds"),
        (1793914326.086, "epoch seconds"),
        (1793914326086.0, "decimal point"),
        (1.793914326086e15, "epoch microseconds"),
        (0.5, "not a whole number"),
        ("1793914326", "epoch seconds in quotes"),
        ("1793914326.5", "epoch seconds in quotes"),
        ("1793914326086", "epoch milliseconds in quotes: send milliseconds without quotes"),
        (" 1793914326086 ", "epoch milliseconds in quotes"),
        ("1793914326086000", "epoch microseconds in quotes"),
        ("-5", "number in quotes"),
        ("9" * 100, "not RFC 3339"),
        ("", "empty"),
        ("2026-11-26T18:00:00+0100", "offset without a colon"),
        ("2026-11-26T18:00:00.25-0730", "offset without a colon"),
        ("2026-11-26T18:00:00+01", "offset without minutes"),
        ("2026-11-26T17:59:60Z", "leap second"),
        ("2026-11-26T24:00:00Z", "hour 24"),
        ("2026-11-26", "date without a time"),
        ("18:00:00", "time without a date"),
        ("18:00:00Z", "time without a date"),
        ("2026-11-26T18:00:00", "no time zone"),
        ("2026-11-26 18:00:00.5", "no time zone"),
        ("2026-11-26T18:00Z", "no seconds"),
        ("2026-11-26T18:00:00,5Z", "comma"),
        ("2026-11-26 18:00:00 UTC", "space before the time zone"),
        ("20261126T180000Z", "basic format"),
        ("2026-02-30T18:00:00Z", "does not exist"),
        ("2026-11-26T25:00:00Z", "does not exist"),
        ("2026-11-26T18:00:00+99:99", "does not exist"),
        ("Thu, 26 Nov 2026 18:00:00 GMT", "not RFC 3339"),
        ("\u0000", "not RFC 3339"),
        ("x" * 10_000, "not RFC 3339"),
        (True, "a boolean"),
        ([1], "an array"),
        ({}, "an object"),
    ],
)
def test_a_wrong_time_is_explained(codec: ReadingCodec, time: Any, says: str) -> None:
    error = rejected(codec, time)
    assert error.reason is Reason.TIME_INVALID
    assert says in error.detail
    assert " s ahead" not in error.detail
    assert len(error.detail) < 300
    assert error.time_ns is None


@pytest.mark.parametrize(
    ("time", "reason", "says"),
    [
        (0, Reason.TIME_TOO_OLD, "is the device's clock set?"),
        (-1, Reason.TIME_TOO_OLD, "is the device's clock set?"),
        (86_400_000, Reason.TIME_TOO_OLD, "is the device's clock set?"),
        (-(10**400), Reason.TIME_TOO_OLD, "401 digits"),
        (1577836800000, Reason.TIME_TOO_OLD, "30 days are kept"),
        ("1970-01-01T00:00:00Z", Reason.TIME_TOO_OLD, "is the device's clock set?"),
        (NOW_NS // 10**6 + 3_600_000, Reason.TIME_AHEAD, "is 3600 s ahead"),
        (10**17, Reason.TIME_AHEAD, "more than a century"),
        (10**400, Reason.TIME_AHEAD, "401 digits is more than a century ahead"),
        ("9999-12-31T23:59:59Z", Reason.TIME_AHEAD, "more than a century"),
    ],
)
def test_a_time_outside_the_limits(
    codec: ReadingCodec, time: Any, reason: Reason, says: str
) -> None:
    error = rejected(codec, time)
    assert error.reason is reason
    assert says in error.detail
    assert error.time_ns is not None


def test_null_counts_as_no_time(codec: ReadingCodec) -> None:
    assert codec.check(json.dumps(reading(time=None)).encode(), "generator1", NOW_NS) is None


@given(
    moment=st.datetimes().map(lambda moment: int((moment.year - 1970) * 3.15e7)),
    scale=st.sampled_from([1, 1_000_000, 1_000_000_000]),
)
def test_only_milliseconds_are_accepted_as_the_present(moment: int, scale: int) -> None:
    """A number in another unit is refused or gives a time outside the limits."""
    number = moment * scale
    try:
        time_ns = parse_device_time(number)
    except ValueError:
        return
    assert abs(time_ns - NOW_NS) > 10**18 or 1_262_304_000_000 <= number < 4_102_444_800_000


@given(
    time=st.text(max_size=60) | st.floats() | st.integers() | st.booleans() | st.lists(st.none())
)
def test_every_wrong_time_has_a_short_explanation(time: Any) -> None:
    assert 0 < len(unusable_time(time)) < 300
    assert len(shown(time)) < 100
