"""The state of a window on the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.models.marker import NOT_PUBLISHED, Marker
from headrace.overview.timeline import WindowState, state_of

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
LONG_AGO = timedelta(hours=1)


def marker(*, settled: bool = True, published: int = 5, revision: int = 0) -> Marker:
    return Marker(START, settled, 5, 20, "generators_windows/run", published, revision)


@pytest.mark.parametrize(
    ("known", "quality_failed", "state"),
    [
        (marker(), False, WindowState.COMPLETE),
        (marker(revision=2), False, WindowState.CORRECTED),
        (marker(published=0), False, WindowState.COMPLETE),
        (marker(), True, WindowState.QUALITY_FAILED),
        # The worst of several states.
        (marker(revision=1), True, WindowState.QUALITY_FAILED),
        (marker(settled=False, revision=1), True, WindowState.UNSETTLED),
        (marker(settled=False, published=NOT_PUBLISHED), False, WindowState.MISSING),
        (marker(published=NOT_PUBLISHED), True, WindowState.MISSING),
        (None, False, WindowState.MISSING),
        (None, True, WindowState.MISSING),
    ],
)
def test_the_worst_state_is_shown(
    known: Marker | None, *, quality_failed: bool, state: WindowState
) -> None:
    found = state_of(known, quality_failed=quality_failed, expected=True, closed_for=LONG_AGO)
    assert found is state


@pytest.mark.parametrize("known", [None, marker(published=NOT_PUBLISHED)])
def test_a_window_that_has_just_ended_is_not_missing(known: Marker | None) -> None:
    def state(seconds: float) -> WindowState:
        closed_for = timedelta(seconds=seconds)
        return state_of(known, quality_failed=False, expected=True, closed_for=closed_for)

    assert state(0) is WindowState.DUE
    assert state(59) is WindowState.DUE
    assert state(60) is WindowState.MISSING


def test_no_window_before_the_installation_is_expected() -> None:
    def state(known: Marker | None) -> WindowState:
        return state_of(known, quality_failed=False, expected=False, closed_for=LONG_AGO)

    assert state(None) is WindowState.NOT_EXPECTED
    # If the window was computed anyway, it has a state.
    assert state(marker()) is WindowState.COMPLETE
    assert state(marker(published=NOT_PUBLISHED)) is WindowState.MISSING
