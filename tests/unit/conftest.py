"""Fixtures of the unit tests: profile, codec, line encoder, and unchanged logging."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.cli import app
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile, load_profile
from headrace.storage.influx_readings import InfluxReadingStore
from headrace.storage.reading_lines import LineEncoder

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


@pytest.fixture(scope="session")
def encoder(profile: Profile) -> LineEncoder:
    return LineEncoder(profile)


@pytest.fixture
def unconnected_store(profile: Profile) -> InfluxReadingStore:
    """A store of readings that makes batches, without a database."""
    return InfluxReadingStore(cast("Any", None), profile)
