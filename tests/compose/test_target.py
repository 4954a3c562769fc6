"""``make test-compose`` where it can't run, and where it fails before its first test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from tests.compose import __main__ as target
from tests.compose.docker import Docker
from tests.compose.roots import Unavailable


@pytest.fixture(autouse=True)
def no_engine_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(folder: Path, progress: object) -> Docker:
        del folder, progress
        msg = "there is no `docker` on PATH"
        raise Unavailable(msg)

    monkeypatch.setattr(target, "machine_engine", absent)


def private_engine_raises(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    @contextmanager
    def failing(shared: Sequence[Path], progress: object) -> Iterator[None]:
        del shared, progress
        raise problem
        yield

    monkeypatch.setattr(target, "private_engine", failing)


def test_without_an_engine_it_says_why_and_succeeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private_engine_raises(monkeypatch, Unavailable("a private engine needs root"))
    assert target.main([]) == 0
    printed = capsys.readouterr().out
    assert "there is no `docker` on PATH" in printed
    assert "test-compose did not run: a private engine needs root" in printed


def test_an_engine_that_does_not_start_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private_engine_raises(monkeypatch, ConfigurationError("it does not start, see the log"))
    assert target.main([]) == 1
    assert "it does not start, see the log" in capsys.readouterr().out
