"""Commands that run in the test process do not change its logging."""

from __future__ import annotations

import pytest

from headrace.cli import app


@pytest.fixture(autouse=True)
def logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise later tests would log to the output of a finished command."""
    monkeypatch.setattr(app, "configure_logging", lambda *_: None)
