"""Ctrl-C ends a command with one line, not with a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn

import pytest

from headrace.cli import main


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["status"], "headrace.status.collect_status"),
        (["dead-letters"], "headrace.storage.kafka_log.held_records"),
        (["replay", "--dead-letter"], "headrace.storage.kafka_log.held_records"),
        (
            ["audit", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"],
            "headrace.recovery.audit.audit",
        ),
    ],
)
def test_an_interrupted_command_exits_with_130(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    called: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    monkeypatch.setenv("HEADRACE_INFLUX_TOKEN", "token")
    monkeypatch.setattr(called, _interrupted)
    monkeypatch.setattr("headrace.storage.kafka_log.held_records", _interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip().endswith("headrace: interrupted")
