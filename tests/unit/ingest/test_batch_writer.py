from __future__ import annotations

import gc
import weakref

import pytest

from headrace.errors import RefusedError
from headrace.ingest.batch_writer import write_halving


class Lines(list[bytes]):
    """A list that one can ask whether it is still there."""


def test_refused_lines_are_found_and_all_others_written() -> None:
    bad = {b"b3", b"b7"}
    stored: set[bytes] = set()

    def write(data: bytes) -> None:
        lines = data.split(b"\n")
        if bad & set(lines):
            msg = "refused"
            raise RefusedError(msg)
        stored.update(lines)

    lines = [b"b%d" % number for number in range(10)]
    assert set(write_halving(write, lines)) == {3, 7}
    assert stored == set(lines) - bad


def test_nothing_is_written_of_an_empty_batch() -> None:
    assert write_halving(lambda _: pytest.fail("written"), []) == {}


def test_written_lines_are_gone_without_a_search_for_cycles() -> None:
    lines = Lines([b"a", b"b"])
    there = weakref.ref(lines)
    gc.disable()
    try:
        write_halving(lambda _: None, lines)
        del lines
        assert there() is None
    finally:
        gc.enable()


def test_refused_lines_are_gone_without_a_search_for_cycles() -> None:
    """The error of a refused line, which is kept, would hold every frame it passed through."""
    lines = Lines([b"a", b"b"])
    there = weakref.ref(lines)

    def refuse(_: bytes) -> None:
        msg = "refused"
        raise RefusedError(msg)

    gc.disable()
    try:
        refused = write_halving(refuse, lines)
        del lines
        assert set(refused) == {0, 1}
        assert there() is None
    finally:
        gc.enable()
