"""Reports of records that Kafka deleted, as records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.foreign import ForeignRecordError
from headrace.models.lost import LostRecords
from headrace.storage.lost_records import lost_headers, read_lost


def lost(start: int, stop: int, partition: int = 0) -> LostRecords:
    return LostRecords("raw", partition, start, stop, "deleted")


def as_bytes(item: LostRecords) -> dict[str, bytes]:
    return {name: str(value).encode() for name, value in lost_headers(item)}


def test_headers_can_be_read_again() -> None:
    assert read_lost(as_bytes(lost(3, 9)), 7) == LostRecords("raw", 0, 3, 9, "deleted", 7)


@pytest.mark.parametrize(
    "change",
    [
        {"offset_start": b"9"},
        {"offset_start": b"-1"},
        {"offset_stop": b"9" * 5000},
        {"offset_stop": b""},
        {"source": b"raw/x/3"},
        {"source": b"\xff"},
        {"source": b""},
    ],
)
def test_other_headers_are_foreign(change: dict[str, bytes]) -> None:
    with pytest.raises(ForeignRecordError):
        read_lost({**as_bytes(lost(3, 9)), **change}, 7)


@given(
    st.dictionaries(
        st.sampled_from(["source", "offset_start", "offset_stop", "detail"]), st.binary()
    )
)
def test_any_headers_are_read_or_foreign(headers: dict[str, bytes]) -> None:
    try:
        found = read_lost(headers, 7)
    except ForeignRecordError:
        return
    assert found.offsets > 0
