"""The reading's wire format: what is taken, what is rejected and why."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.models.deadletter import Oversized, Reason, RejectedReadingError
from headrace.models.reading import ReadingCodec, epoch_ns
from headrace.profile import Profile
from tests.support.devices import reading

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
NOW_NS = epoch_ns(NOW)


def check(codec: ReadingCodec, payload: bytes, device: str = "generator1") -> int | None:
    return codec.check(payload, device, NOW_NS)


def encoded(**changes: Any) -> bytes:
    return json.dumps(reading(**changes)).encode()


def test_reading_without_time_is_left_to_the_bridge(codec: ReadingCodec) -> None:
    assert check(codec, encoded()) is None


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-06-01T12:00:00Z", NOW_NS),
        ("2026-06-01T12:00:00.5Z", NOW_NS + 500_000_000),
        ("2026-06-01T12:00:00.123456789Z", NOW_NS + 123_456_789),
        ("2026-06-01T12:00:00.1234567891Z", NOW_NS + 123_456_789),
        ("2026-06-01T14:00:00+02:00", NOW_NS),
        ("2026-06-01t12:00:00z", NOW_NS),
        (NOW_NS // 1_000_000, NOW_NS),
        (NOW_NS // 1_000_000 - 1, NOW_NS - 1_000_000),
    ],
)
def test_time_of_the_device(codec: ReadingCodec, time: str | int, expected: int) -> None:
    assert check(codec, encoded(time=time)) == expected


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"fuel=5", Reason.NOT_JSON),
        (b'{"generatorID": "generator1"', Reason.NOT_JSON),
        (b"\xff\xfe{}", Reason.NOT_JSON),
        (encoded(note="@").replace(b"@", b"\xff"), Reason.NOT_JSON),
        (encoded() + b" trailing", Reason.NOT_JSON),
        (b"[" * 100_00 + b"]" * 100_00, Reason.NOT_JSON),
        (b"[1, 2]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'"generator1"', Reason.NOT_AN_OBJECT),
        (encoded(fuel=...), Reason.MISSING_FIELD),
        (encoded(generatorID=...), Reason.MISSING_FIELD),
        (encoded(fuel="full"), Reason.WRONG_TYPE),
        (encoded(fuel=True), Reason.WRONG_TYPE),
        (encoded(fuel=None), Reason.WRONG_TYPE),
        (encoded(generatorID=7), Reason.WRONG_TYPE),
        (encoded(fuel=math.nan), Reason.NOT_FINITE),
        (encoded(fuel=math.inf), Reason.NOT_FINITE),
        (encoded(fuel=0).replace(b'"fuel": 0', b'"fuel": 1e400'), Reason.NOT_FINITE),
        (encoded(generatorID="generator2"), Reason.ID_MISMATCH),
        (encoded(time="yesterday"), Reason.TIME_INVALID),
        (encoded(time="2026-06-01T12:00:00"), Reason.TIME_INVALID),
        (encoded(time="2026-13-01T12:00:00Z"), Reason.TIME_INVALID),
        (encoded(time="2026-06-01T12:00:00Z\n"), Reason.TIME_INVALID),
        (encoded(time=1.5), Reason.TIME_INVALID),
        (encoded(time=[1]), Reason.TIME_INVALID),
        (encoded(time=-1), Reason.TIME_TOO_OLD),
        (encoded(time="2026-05-01T11:59:59Z"), Reason.TIME_TOO_OLD),
        (encoded(time="2026-06-01T12:05:01Z"), Reason.TIME_AHEAD),
        (encoded(time=10**18), Reason.TIME_AHEAD),
        (encoded(note="x" * 70_000), Reason.TOO_LARGE),
    ],
)
def test_rejected_with_its_reason(codec: ReadingCodec, payload: bytes, reason: Reason) -> None:
    with pytest.raises(RejectedReadingError) as rejected:
        check(codec, payload)
    assert rejected.value.reason is reason
    assert rejected.value.detail


def test_the_limits_of_time_are_still_taken(codec: ReadingCodec) -> None:
    assert check(codec, encoded(time="2026-06-01T12:05:00Z")) == NOW_NS + 300 * 10**9
    oldest = NOW - timedelta(days=30)
    assert check(codec, encoded(time=oldest.isoformat())) == epoch_ns(oldest)


def test_size_of_a_cut_payload_is_told(codec: ReadingCodec) -> None:
    payload = Oversized(b"x" * 65_537)
    payload.size = 5_000_000
    with pytest.raises(RejectedReadingError, match="5000000 bytes"):
        check(codec, payload)


@pytest.mark.parametrize(
    "device",
    ["", "x" * 257, "a\nb", "a\tb", "ends\\", "a\\,b", "a\\ b", "a\x7fb", "\x00"],
)
def test_ids_that_can_not_be_written(codec: ReadingCodec, device: str) -> None:
    with pytest.raises(RejectedReadingError) as rejected:
        codec.check_id(device)
    assert rejected.value.reason is Reason.ID_UNWRITABLE


def test_line_has_every_number_as_a_float(codec: ReadingCodec) -> None:
    line = codec.line(encoded(fuel=5, load=0), 1_700_000_000_000_000_001)
    assert line == (
        "genData,generatorID=generator1 lat=40.7,lon=-74.1,temperature=190.0,power=800.0,"
        "load=0.0,fuel=5.0 1700000000000000001"
    )


def test_line_escapes_the_tag(codec: ReadingCodec) -> None:
    line = codec.line(encoded(generatorID="a, b=c"), 1)
    assert line.startswith(r"genData,generatorID=a\,\ b\=c lat=")


def test_line_leaves_out_optional_fields_that_are_missing(profile: Profile) -> None:
    content = profile.model_dump()
    content["fields"]["load"]["required"] = False
    codec = ReadingCodec(
        Profile.model_validate(content),
        max_payload_bytes=1000,
        max_age=timedelta(days=30),
        max_ahead=timedelta(minutes=5),
    )
    assert ",load=" not in codec.line(encoded(load=...), 1)
    assert codec.line(encoded(load=7), 1).endswith("fuel=700.0,load=7.0 1")
    assert check(codec, encoded(load=...)) is None


_SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
_JSON = _SCALAR | st.lists(_SCALAR, max_size=2)
_ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "generatorID": st.just("generator1") | _JSON,
        "time": st.just("2026-06-01T12:00:00Z") | st.integers() | _JSON,
        **{
            name: st.floats() | st.integers() | _JSON
            for name in ("lat", "lon", "temperature", "power", "load", "fuel")
        },
    },
)


@given(payload=st.binary(max_size=300) | _ALMOST.map(lambda content: json.dumps(content).encode()))
def test_whatever_comes_is_taken_or_rejected(codec: ReadingCodec, payload: bytes) -> None:
    """Nothing but the one exception; and what is taken can be written as a line."""
    try:
        time_ns = check(codec, payload)
    except RejectedReadingError as exc:
        assert exc.reason in Reason
        return
    line = codec.line(payload, time_ns or NOW_NS)
    assert "\n" not in line
    assert "nan" not in line
    assert "inf" not in line


@given(
    values=st.fixed_dictionaries(
        {
            name: st.floats(allow_nan=False, allow_infinity=False)
            for name in ("lat", "lon", "temperature", "power", "load", "fuel")
        }
    )
)
def test_numbers_survive_exactly(codec: ReadingCodec, values: dict[str, float]) -> None:
    line = codec.line(json.dumps({"generatorID": "g", **values}).encode(), 1)
    fields = line.split(" ")[1].split(",")
    assert {name: float(text) for name, text in (item.split("=") for item in fields)} == values
