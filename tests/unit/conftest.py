"""Fixtures of the unit tests: the shipped profile, and a codec for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

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
