"""Commands run inside of the tests' process leave its logging alone."""

from __future__ import annotations

import pytest

from headrace.cli import app


@pytest.fixture(autouse=True)
def logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else later tests would log to the output of a command that has ended."""
    monkeypatch.setattr(app, "configure_logging", lambda *_: None)
