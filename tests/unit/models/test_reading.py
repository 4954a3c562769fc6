"""The format of readings: accepted ones, and rejected ones with the reason."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.models.deadletter import Oversized, Reason, RejectedReadingError
from headrace.models.device_time import epoch_ns
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from tests.support.devices import reading

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
NOW_NS = epoch_ns(NOW)


def check(codec: ReadingCodec, payload: bytes, device: str = "generator1") -> int | None:
    return codec.check(payload, device, NOW_NS)


def encoded(**changes: Any) -> bytes:
    return json.dumps(reading(**changes)).encode()


def test_a_reading_without_time_gets_its_time_from_the_bridge(codec: ReadingCodec) -> None:
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


def test_times_at_the_limits_are_accepted(codec: ReadingCodec) -> None:
    assert check(codec, encoded(time="2026-06-01T12:05:00Z")) == NOW_NS + 300 * 10**9
    oldest = NOW - timedelta(days=30)
    assert check(codec, encoded(time=oldest.isoformat())) == epoch_ns(oldest)


def test_the_size_of_a_truncated_payload_is_reported(codec: ReadingCodec) -> None:
    payload = Oversized(b"x" * 65_537)
    payload.size = 5_000_000
    with pytest.raises(RejectedReadingError, match="5000000 bytes"):
        check(codec, payload)


@pytest.mark.parametrize(
    "device",
    ["", "x" * 257, "a\nb", "a\tb", "ends\\", "a\\,b", "a\\ b", "a\x7fb", "\x00"],
)
def test_ids_that_influxdb_can_not_store_are_rejected(codec: ReadingCodec, device: str) -> None:
    with pytest.raises(RejectedReadingError) as rejected:
        codec.check_id(device)
    assert rejected.value.reason is Reason.ID_UNWRITABLE


def test_optional_fields_may_be_missing(profile: Profile) -> None:
    content = profile.model_dump()
    content["fields"]["load"]["required"] = False
    optional = ReadingCodec(
        Profile.model_validate(content),
        max_payload_bytes=1000,
        max_age=timedelta(days=30),
        max_ahead=timedelta(minutes=5),
    )
    assert check(optional, encoded(load=...)) is None
