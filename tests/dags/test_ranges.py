"""A run covers only windows that have ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.errors import ConfigurationError
from headrace.models.window import WindowRange, rfc3339
from headrace.orchestration.ranges import run_range
from headrace.profile import Profile, load_profile
from tests.dags.conftest import PROJECT

REQUESTED = datetime(2026, 6, 1, 12, 30, 20, tzinfo=UTC)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile(PROJECT / "include" / "profiles" / "generators.yaml")


def asked(start: datetime | None, stop: datetime | None) -> dict[str, Any]:
    params = {
        "start": rfc3339(start) if start else None,
        "stop": rfc3339(stop) if stop else None,
    }
    return {"params": params, "dag_run": SimpleNamespace(run_after=REQUESTED)}


def test_a_range_ends_with_the_last_ended_window(profile: Profile) -> None:
    ended = NOON + 30 * MINUTE
    for stop in (ended, ended + timedelta(seconds=10), NOON + 70 * MINUTE, NOON + timedelta(99)):
        assert run_range(asked(NOON, stop), profile) == WindowRange(NOON, ended, MINUTE)


def test_a_stop_within_a_window_includes_that_window(profile: Profile) -> None:
    found = run_range(asked(NOON + timedelta(seconds=30), NOON + timedelta(seconds=90)), profile)
    assert found == WindowRange(NOON, NOON + 2 * MINUTE, MINUTE)


@pytest.mark.parametrize(
    ("start", "stop", "sentence"),
    [
        (NOON + 30 * MINUTE, NOON + 40 * MINUTE, "the last window that has ended stops at 2026-0"),
        (NOON + timedelta(400), NOON + timedelta(401), "is in the future"),
        (NOON, NOON, "must be before stop"),
        (NOON, NOON - MINUTE, "must be before stop"),
        (NOON, None, "give both start and stop"),
        (None, NOON, "give both start and stop"),
    ],
)
def test_a_range_without_an_ended_window_is_refused(
    profile: Profile, start: datetime | None, stop: datetime | None, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        run_range(asked(start, stop), profile)


@pytest.mark.parametrize("text", ["yesterday", "2026-06-01T12:00:00", "12", "\x00", 7, True])
def test_an_invalid_time_is_refused(profile: Profile, text: object) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a time|time zone"):
        run_range({"params": {"start": text, "stop": rfc3339(NOON)}}, profile)


def test_a_run_requested_by_a_fast_clock_ends_now(profile: Profile) -> None:
    now = datetime.now(UTC)
    context = asked(now - timedelta(hours=1), now + timedelta(hours=1))
    context["dag_run"] = SimpleNamespace(run_after=now + timedelta(hours=3))
    assert run_range(context, profile).stop <= datetime.now(UTC)
