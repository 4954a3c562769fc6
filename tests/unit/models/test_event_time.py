"""The header ``time_ns`` with any content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.event_time import event_time, stamp_of

MOST = (1 << 63) - 1


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"soon",
        b"-5",
        b"+5",
        b"1_000",
        b" 5",
        b"1e3",
        b"1.0",
        "\u0661\u0662".encode(),
        b"\xff",
        b"nan",
        str(MOST + 1).encode(),
        b"9" * 5000,
    ],
)
def test_anything_but_a_64_bit_number_is_rejected(header: bytes) -> None:
    assert stamp_of(header) is None
    with pytest.raises(RejectedReadingError) as caught:
        event_time(header, 5)
    assert caught.value.reason is Reason.TIME_INVALID


@given(st.integers(0, MOST))
def test_a_number_is_kept(number: int) -> None:
    header = str(number).encode()
    assert stamp_of(header) == number
    assert event_time(header, 5) == header


@given(st.binary())
def test_any_bytes_are_a_time_or_rejected(header: bytes) -> None:
    stamp = stamp_of(header)
    assert stamp is None or 0 <= stamp <= MOST


def test_a_record_without_a_header_has_the_time_of_its_arrival() -> None:
    assert stamp_of(None) is None
    assert event_time(None, 5) == b"5000000"
