"""Fixtures of the unit tests: the shipped profile, a codec for it, and unchanged logging."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from headrace.cli import app
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile, load_profile

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(PROJECT / "include" / "profiles" / "generators.yaml")


@pytest.fixture(scope="session")
def codec(profile: Profile) -> ReadingCodec:
    return ReadingCodec(
        profile,
        max_payload_bytes=64 * 1024,
        max_age=timedelta(days=30),
        max_ahead=timedelta(minutes=5),
    )


@pytest.fixture(autouse=True)
def logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise later tests would log to the output of a command that has finished."""
    monkeypatch.setattr(app, "configure_logging", lambda *_: None)
