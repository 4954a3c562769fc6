"""Output of `headrace audit` and `headrace replay`."""

from __future__ import annotations

from collections import Counter

import pytest

from headrace.cli.recovery import _show_audit, _show_outcome
from headrace.models.lost import LostRecords
from headrace.recovery.audit import Audit


def test_audit_shows_losses_with_the_next_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = Audit("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", lost=1)
    result.missing = [{"device": "[red]x\x1b[2J", "time": "2026-01-01T00:00:00.000000000Z"}]
    result.deleted = [LostRecords("kafka_raw", 2, 5, 12, "the [bold]disk was full")]
    result.complete = False
    result.note = "partitions [0, 2] are not complete"
    _show_audit(result.as_dict())
    shown = capsys.readouterr().out
    for text in (
        "[red]x\\x1b[2J",
        "5 to 11",
        "the [bold]disk",
        "partitions [0, 2]",
        "`headrace replay",
    ):
        assert text in shown
    assert "HEADRACE_KAFKA_RETENTION" in shown
    assert "\x1b[2J" not in shown


def test_a_replay_without_readings_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    _show_outcome(Counter())
    assert "nothing to send" in capsys.readouterr().out
    _show_outcome(Counter({"sent": 2, "left: wrong_type": 1}))
    shown = capsys.readouterr().out
    assert "sent" in shown
    assert "left: wrong_type" in shown
