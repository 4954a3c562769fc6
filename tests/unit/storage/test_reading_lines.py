"""Encoding of readings as lines: the fast and the slow path give the device's values."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.device_time import epoch_ns
from headrace.models.reading import ReadingCodec
from headrace.models.window import parse_time
from headrace.profile import Profile
from headrace.storage.reading_lines import LineEncoder
from tests.support.devices import reading

NOW_NS = epoch_ns(parse_time("2026-06-01T12:00:00Z"))


def encoded(**changes: Any) -> bytes:
    return json.dumps(reading(**changes)).encode()


@pytest.mark.parametrize(
    "device",
    ["", "x" * 257, "a\nb", "a\tb", "ends\\", "a\\,b", "a\\ b", "a\x7fb", "\x00"],
)
def test_ids_that_influxdb_can_not_store_are_rejected(encoder: LineEncoder, device: str) -> None:
    for payload in (encoded(generatorID=device), encoded(generatorID=device, note=1)):
        with pytest.raises(RejectedReadingError) as rejected:
            encoder.line(payload, b"1")
        assert rejected.value.reason is Reason.ID_UNWRITABLE


def test_an_id_with_an_unescaped_control_character_is_rejected(encoder: LineEncoder) -> None:
    payload = encoded(generatorID="@").replace(b"@", b"a\x7fb")
    with pytest.raises(RejectedReadingError) as rejected:
        encoder.line(payload, b"1")
    assert rejected.value.reason is Reason.ID_UNWRITABLE


def test_the_line_of_a_usual_reading(encoder: LineEncoder) -> None:
    """Numbers keep the device's spelling; in line protocol ``5`` is a float, too."""
    line = encoder.line(encoded(fuel=5, load=0), b"1700000000000000001")
    assert line == (
        b"genData,generatorID=generator1 lat=40.7,lon=-74.1,temperature=190,power=800,"
        b"load=0,fuel=5 1700000000000000001"
    )


def test_the_line_leaves_out_unknown_fields(encoder: LineEncoder) -> None:
    line = encoder.line(encoded(note="fuel: 9", time=1), b"1700000000000000001")
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
def test_the_line_escapes_the_tag(encoder: LineEncoder, device: str, tag: bytes) -> None:
    line = encoder.line(encoded(generatorID=device), b"1")
    assert line.startswith(b"genData,generatorID=" + tag + b" lat=")


@pytest.fixture(scope="module")
def optional(profile: Profile) -> LineEncoder:
    """An encoder for a profile with an optional field."""
    content = profile.model_dump()
    content["fields"]["load"]["required"] = False
    return LineEncoder(Profile.model_validate(content))


def test_the_line_leaves_out_missing_optional_fields(optional: LineEncoder) -> None:
    assert b",load=" not in optional.line(encoded(load=...), b"1")
    assert b",load=" not in optional.line(encoded(load=None), b"1")
    assert b",load=7," in optional.line(encoded(load=7), b"1")


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
def test_any_payload_is_accepted_or_rejected(
    codec: ReadingCodec, encoder: LineEncoder, payload: bytes
) -> None:
    """The only exception is the expected one, and accepted payloads can be encoded."""
    try:
        time_ns = codec.check(payload, "generator1", NOW_NS)
    except RejectedReadingError as exc:
        assert exc.reason in Reason
        return
    device, fields = read_line(encoder.line(payload, b"%d" % (time_ns or NOW_NS)))
    assert device == "generator1"
    assert all(math.isfinite(value) for value in fields.values())


_SPACES = st.text(" \t\r\n", max_size=2)
_DIGITS = st.text("0123456789", min_size=1, max_size=20)
#: Numbers in every JSON spelling.
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
    """Return readings in any spelling of a device, most of them usual."""

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
    encoder: LineEncoder, optional: LineEncoder, payload: str
) -> None:
    """Any spelling and both paths give the same values."""
    content = json.loads(payload)
    for either in (encoder, optional):
        device, fields = read_line(either.line(payload.encode(), b"1"))
        assert device == content["generatorID"]
        assert fields == {name: float(content[name]) for name in _NAMES}


@settings(max_examples=300)
@given(texts=st.lists(payloads(), min_size=1, max_size=4))
def test_lines_of_a_batch_equal_lines_made_one_by_one(
    encoder: LineEncoder, optional: LineEncoder, texts: list[str]
) -> None:
    times = [b"%d" % number for number in range(len(texts))]
    some = [text.encode() for text in texts]
    for either in (encoder, optional):
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
    optional: LineEncoder, some: list[bytes]
) -> None:
    """A payload can't compensate for missing parts of another."""
    for payloads in (some, some[::-1], [encoded(), *some, encoded()]):
        assert optional.lines(payloads, [b"1"] * len(payloads)) is None


def read_line(line: bytes) -> tuple[str, dict[str, float]]:
    """Parse a line like InfluxDB: a comma after a backslash does not separate."""
    series, fields, _ = re.split(r"(?<!\\) ", line.decode())
    measurement, tag = re.split(r"(?<!\\),", series)
    assert measurement == "genData"
    name, device = re.split(r"(?<!\\)=", tag)
    assert name == "generatorID"
    pairs = [item.split("=") for item in fields.split(",")]
    assert len(dict(pairs)) == len(pairs)
    # Python would accept white space.
    assert all(re.fullmatch(r"-?\d[\d.eE+-]*", text) for _, text in pairs)
    return re.sub(r"\\([,= ])", r"\1", device), {name: float(text) for name, text in pairs}


def test_a_byte_order_mark_is_skipped(encoder: LineEncoder) -> None:
    marked = b"\xef\xbb\xbf" + encoded()
    assert encoder.line(marked, b"1").startswith(b"genData,generatorID=generator1 lat=40.7,")
    assert encoder.lines([encoded(), marked], [b"1", b"2"]) is None
