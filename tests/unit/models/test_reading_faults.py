"""The reason for a rejection is true, even if the payload has more errors."""

from __future__ import annotations

import gc
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.device_time import epoch_ns
from headrace.models.reading import ReadingCodec
from headrace.models.window import parse_time
from tests.support.devices import reading

NOW_NS = epoch_ns(parse_time("2026-06-01T12:00:00Z"))
_FIELDS = ("lat", "lon", "temperature", "power", "load", "fuel")


def encoded(**changes: Any) -> bytes:
    return json.dumps(reading(**changes)).encode()


def rejection(codec: ReadingCodec, payload: bytes) -> RejectedReadingError:
    with pytest.raises(RejectedReadingError) as rejected:
        codec.check(payload, "generator1", NOW_NS)
    return rejected.value


def spelled(name: str, value: str) -> bytes:
    """Return a reading with a value in this spelling."""
    return encoded(**{name: "@"}).replace(b'"@"', value.encode())


def test_a_byte_order_mark_is_skipped(codec: ReadingCodec) -> None:
    marked = b"\xef\xbb\xbf" + encoded()
    assert codec.check(marked, "generator1", NOW_NS) is None
    assert rejection(codec, b"\xef\xbb\xbf{").reason is Reason.NOT_JSON


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("changes", [{}, {"fuel": ...}, {"fuel": "x"}])
def test_another_encoding_is_named(
    codec: ReadingCodec, encoding: str, changes: dict[str, Any]
) -> None:
    rejected = rejection(codec, encoded(**changes).decode().encode(encoding))
    assert rejected.reason is Reason.NOT_JSON
    assert f"looks like {encoding[:6].upper()}" in rejected.detail


@pytest.mark.parametrize(
    ("payload", "reason", "detail"),
    [
        (b"\x00\x01\x02", Reason.NOT_JSON, "Expecting value"),
        (b"\xff\xfe\xfd", Reason.NOT_JSON, "not UTF-8: byte 0xff at 0"),
        (b"  \n", Reason.NOT_JSON, "empty or white space"),
        (encoded() + b"{}", Reason.NOT_JSON, "Extra data"),
        (encoded(fuel=...) + b"]", Reason.NOT_JSON, "Extra data"),
        (encoded(fuel=...)[:-1], Reason.NOT_JSON, "delimiter"),
        (spelled("note", '"\\ud800"'), Reason.NOT_JSON, "half of a surrogate pair"),
        (spelled("note", "[" * 90_000 + "]" * 90_000)[:60_000], Reason.NOT_JSON, "too deeply"),
        (spelled("note", "[" * 30_000 + "]" * 30_000), Reason.NOT_JSON, "too deeply"),
        (spelled("note", "NaN"), Reason.NOT_JSON, "NaN is not JSON"),
        (spelled("fuel", "NaN").replace(b'"load"', b'"l"'), Reason.NOT_FINITE, "fuel is NaN"),
        (spelled("fuel", "1" * 5000), Reason.NOT_FINITE, "fuel is too large"),
        (spelled("fuel", "1e999"), Reason.NOT_FINITE, "fuel is too large"),
        (spelled("fuel", "[1]"), Reason.WRONG_TYPE, "fuel is an array, it must be a number"),
        (spelled("fuel", "null"), Reason.WRONG_TYPE, "fuel is null, it must be a number"),
        (spelled("generatorID", "7"), Reason.WRONG_TYPE, "generatorID is a number"),
        (b'{"fuel": "x", ' + encoded()[1:], Reason.WRONG_TYPE, "a key is repeated"),
        (b"3", Reason.NOT_AN_OBJECT, "a number"),
        (b"true", Reason.NOT_AN_OBJECT, "a boolean"),
        (spelled("time", "NaN"), Reason.TIME_INVALID, "time is NaN"),
        (spelled("time", "true"), Reason.TIME_INVALID, "a boolean"),
        (spelled("time", "1e400"), Reason.TIME_INVALID, "too large"),
        (spelled("time", "1" * 5000), Reason.TIME_INVALID, "too large"),
        (spelled("time", "-" + "1" * 5000), Reason.TIME_INVALID, "too large"),
        (spelled("time", "{}"), Reason.TIME_INVALID, "an object"),
    ],
)
def test_a_rejection_has_reason_and_detail(
    codec: ReadingCodec, payload: bytes, reason: Reason, detail: str
) -> None:
    rejected = rejection(codec, payload)
    assert (rejected.reason, detail in rejected.detail) == (reason, True), rejected.detail


_VALUES = st.sampled_from(
    ["1", "-0.0", "1e400", "NaN", "-Infinity", '"1"', "null", "true", "[1]", "{}", '"\\ud800"',
     "01", "1" * 350, "1" * 4400, '"\\u0000"', '"x', "[" * 5000, "1793914326"]
)  # fmt: skip
_PAIRS = st.lists(
    st.tuples(st.sampled_from(["generatorID", *_FIELDS, "time", "note"]), _VALUES), max_size=3
)
_NOISE = st.sampled_from([b"", b"\xff", b" ", b"]", b"{}", b"\x00", b",", b"\xed\xa0\x80"])


@settings(max_examples=400)
@given(
    pairs=_PAIRS,
    left_out=st.sets(st.sampled_from(["generatorID", *_FIELDS]), max_size=2),
    before=_NOISE,
    after=_NOISE,
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"]),
)
def test_reasons_are_true(
    codec: ReadingCodec,
    pairs: list[tuple[str, str]],
    left_out: set[str],
    before: bytes,
    after: bytes,
    encoding: str,
) -> None:
    good = {name: json.dumps(value) for name, value in reading().items() if name not in left_out}
    text = ", ".join(f'"{name}": {value}' for name, value in [*good.items(), *pairs])
    payload = before + f"{{{text}}}".encode(encoding) + after
    try:
        codec.check(payload, "generator1", NOW_NS)
    except RejectedReadingError as exc:
        found = exc.rejection
    else:
        return
    assert found.detail
    if found.reason in {Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.NOT_AN_OBJECT}:
        content = json.loads(payload.decode("utf-8-sig"), parse_constant=pytest.fail, parse_int=len)
        assert isinstance(content, dict) is (found.reason is not Reason.NOT_AN_OBJECT)
        if found.reason is Reason.MISSING_FIELD:
            assert found.detail.split()[0] not in content
    if "UTF-16" in found.detail or "UTF-32" in found.detail:
        assert payload[:4].count(b"\x00") or payload[:2] in {b"\xff\xfe", b"\xfe\xff"}
    if found.reason is Reason.NOT_FINITE:
        name = found.detail.split()[0]
        assert any(
            key == name and not math.isfinite(float(value.replace("Infinity", "inf")))
            for key, value in pairs
            if value in {"NaN", "-Infinity", "1e400", "1" * 350, "1" * 4400}
        )


def test_a_rejected_payload_is_freed_at_once(codec: ReadingCodec) -> None:
    """The explaining error is not in a reference cycle."""
    gc.collect()
    gc.disable()
    try:
        for payload in (b"{", encoded(fuel=...), b"\xef\xbb\xbf{", encoded(time="soon")):
            with suppress(RejectedReadingError):
                codec.check(payload, "generator1", NOW_NS)
        assert not [item for item in gc.get_objects() if type(item) is RejectedReadingError]
    finally:
        gc.enable()
