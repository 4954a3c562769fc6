from __future__ import annotations

import gc
import weakref

import pytest

from headrace.errors import RefusedError
from headrace.ingest.batch_writer import write_halving


class Lines(list[bytes]):
    """A list that supports weak references, so that a test notices when it is freed."""


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


def test_an_empty_batch_writes_nothing() -> None:
    assert write_halving(lambda _: pytest.fail("written"), []) == {}


def test_written_lines_are_freed_without_the_garbage_collector() -> None:
    lines = Lines([b"a", b"b"])
    there = weakref.ref(lines)
    gc.disable()
    try:
        write_halving(lambda _: None, lines)
        del lines
        assert there() is None
    finally:
        gc.enable()


def test_refused_lines_are_freed_without_the_garbage_collector() -> None:
    """The stored error of a refused line must not keep the frames it passed through."""
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
