"""The reading's wire format: what is taken, what is rejected and why."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    for payload in (encoded(generatorID=device), encoded(generatorID=device, note=1)):
        with pytest.raises(RejectedReadingError) as rejected:
            codec.line(payload, b"1")
        assert rejected.value.reason is Reason.ID_UNWRITABLE


def test_an_id_with_an_unescaped_control_character_is_rejected(codec: ReadingCodec) -> None:
    payload = encoded(generatorID="@").replace(b"@", b"a\x7fb")
    with pytest.raises(RejectedReadingError) as rejected:
        codec.line(payload, b"1")
    assert rejected.value.reason is Reason.ID_UNWRITABLE


def test_the_line_of_a_usual_reading(codec: ReadingCodec) -> None:
    """Numbers as the device spelled them: in line protocol ``5`` is a float, too."""
    line = codec.line(encoded(fuel=5, load=0), b"1700000000000000001")
    assert line == (
        b"genData,generatorID=generator1 lat=40.7,lon=-74.1,temperature=190,power=800,"
        b"load=0,fuel=5 1700000000000000001"
    )


def test_the_line_leaves_out_unknown_fields(codec: ReadingCodec) -> None:
    line = codec.line(encoded(note="fuel: 9", time=1), b"1700000000000000001")
    assert line == (
        b"genData,generatorID=generator1 lat=40.7,lon=-74.1,temperature=190.0,power=800.0,"
        b"load=40.0,fuel=700.0 1700000000000000001"
    )


@pytest.mark.parametrize(
    ("device", "tag"),
    [
        ("a, b=c", rb"a\,\ b\=c"),
        ("a=b", rb"a\=b"),
        ("a b", rb"a\ b"),
        ("a,b", rb"a\,b"),
        ("{", b"{"),
        ("}", b"}"),
    ],
)
def test_the_line_escapes_the_tag(codec: ReadingCodec, device: str, tag: bytes) -> None:
    line = codec.line(encoded(generatorID=device), b"1")
    assert line.startswith(b"genData,generatorID=" + tag + b" lat=")


@pytest.fixture(scope="module")
def optional(profile: Profile) -> ReadingCodec:
    """A codec of a profile with a field that need not be there."""
    content = profile.model_dump()
    content["fields"]["load"]["required"] = False
    return ReadingCodec(
        Profile.model_validate(content),
        max_payload_bytes=1000,
        max_age=timedelta(days=30),
        max_ahead=timedelta(minutes=5),
    )


def test_the_line_leaves_out_missing_optional_fields(optional: ReadingCodec) -> None:
    assert b",load=" not in optional.line(encoded(load=...), b"1")
    assert b",load=" not in optional.line(encoded(load=None), b"1")
    assert b",load=7," in optional.line(encoded(load=7), b"1")
    assert check(optional, encoded(load=...)) is None


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
def test_any_payload_is_accepted_or_rejected(codec: ReadingCodec, payload: bytes) -> None:
    """Nothing but the one exception; and what is taken can be written as a line."""
    try:
        time_ns = check(codec, payload)
    except RejectedReadingError as exc:
        assert exc.reason in Reason
        return
    device, fields = read_line(codec.line(payload, b"%d" % (time_ns or NOW_NS)))
    assert device == "generator1"
    assert all(math.isfinite(value) for value in fields.values())


_SPACES = st.text(" \t\r\n", max_size=2)
_DIGITS = st.text("0123456789", min_size=1, max_size=20)
#: Numbers in every spelling that JSON has.
_NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.just("0") | _DIGITS.filter(lambda digits: digits[0] != "0"),
    st.just("") | _DIGITS.map(".{}".format),
    st.sampled_from(["", "e5", "E-7", "e+03"]),
)
_NAMES = ("lat", "lon", "temperature", "power", "load", "fuel")
_ODD_IDS = st.sampled_from(["a b", "a=b", "a,b", "{a}", "a:b", "null", "g\u00e9n", 'a"b'])


@st.composite
def payloads(draw: st.DrawFn) -> str:
    """Readings as a device may spell them, most of them with nothing odd."""

    def odd() -> bool:
        return draw(st.integers(0, 4)) == 0

    device = json.dumps(draw(_ODD_IDS) if odd() else "generator1", ensure_ascii=odd())
    items = [("generatorID", device), *((name, draw(_NUMBERS)) for name in _NAMES)]
    if odd():
        items = draw(st.permutations(items))
    if odd():
        more = [("note", '"fuel"'), ("time", "null"), ("fuel", "7"), ("a:b", "{}")]
        items += draw(st.lists(st.sampled_from(more), max_size=2))
    spelled = []
    escaped = odd()
    for name, value in items:
        key = json.dumps(name)
        if escaped:
            key = key.replace("l", "\\u006c")
        gaps = [draw(_SPACES) for _ in range(4)]
        spelled.append(f"{gaps[0]}{key}{gaps[1]}:{gaps[2]}{value}{gaps[3]}")
    return "{" + ",".join(spelled) + "}"


@settings(max_examples=300)
@given(payload=payloads())
def test_the_line_has_the_values_of_the_reading(
    codec: ReadingCodec, optional: ReadingCodec, payload: str
) -> None:
    """However it is spelled, and whichever way the line is made."""
    content = json.loads(payload)
    for either in (codec, optional):
        device, fields = read_line(either.line(payload.encode(), b"1"))
        assert device == content["generatorID"]
        assert fields == {name: float(content[name]) for name in _NAMES}


@settings(max_examples=300)
@given(texts=st.lists(payloads(), min_size=1, max_size=4))
def test_lines_of_a_batch_equal_lines_made_one_by_one(
    codec: ReadingCodec, optional: ReadingCodec, texts: list[str]
) -> None:
    times = [b"%d" % number for number in range(len(texts))]
    some = [text.encode() for text in texts]
    for either in (codec, optional):
        alone = [either.lines([one], [time]) for one, time in zip(some, times, strict=True)]
        together = either.lines(some, times)
        if None in alone:
            assert together is None
        else:
            assert together == [line for lines in alone if lines for line in lines]


_LACKS_LOAD = encoded(load=...)
_TWICE = encoded(load=1).replace(b'"fuel"', b'"load": 2, "fuel"')
_HALF, _OTHER_HALF = encoded().split(b", ", 1)
_ODD = {
    "two in one, and one that is empty": [encoded() + encoded(), b""],
    "two in one, and one in two": [_HALF + b",", _OTHER_HALF, encoded() + encoded()],
    "two in one, a line each, and one that is empty": [encoded() + b"\n" + encoded(), b""],
    "one in two, with everything twice": [_LACKS_LOAD[:-1] + b",", _LACKS_LOAD[1:]],
    "a field twice, and one without it": [_LACKS_LOAD, _TWICE],
    "an unknown key, and one without a field": [_LACKS_LOAD, encoded(note=1)],
    "an empty id": [encoded(generatorID="")],
    "an id that is too long": [encoded(generatorID="x" * 257)],
    "an id behind another field": [json.dumps(dict(reversed(reading().items()))).encode()],
    "no reading": [b"rubbish"],
}


@pytest.mark.parametrize("some", _ODD.values(), ids=_ODD)
def test_unusual_readings_are_left_out_of_the_fast_path(
    optional: ReadingCodec, some: list[bytes]
) -> None:
    """Nor does one payload make up for what another lacks."""
    for payloads in (some, some[::-1], [encoded(), *some, encoded()]):
        assert optional.lines(payloads, [b"1"] * len(payloads)) is None


def read_line(line: bytes) -> tuple[str, dict[str, float]]:
    """Read a line as InfluxDB does: where a backslash stands, a comma does not part."""
    series, fields, _ = re.split(r"(?<!\\) ", line.decode())
    measurement, tag = re.split(r"(?<!\\),", series)
    assert measurement == "genData"
    name, device = re.split(r"(?<!\\)=", tag)
    assert name == "generatorID"
    pairs = [item.split("=") for item in fields.split(",")]
    assert len(dict(pairs)) == len(pairs)
    # Python would forgive white space.
    assert all(re.fullmatch(r"-?\d[\d.eE+-]*", text) for _, text in pairs)
    return re.sub(r"\\([,= ])", r"\1", device), {name: float(text) for name, text in pairs}
