"""Verdicts and the table of the quality report."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.models.quality import Verdict, judge, report_table
from headrace.profile import Thresholds

SHARE = Thresholds(warn=0.9, fail=0.5)
AGE = Thresholds(warn=timedelta(seconds=60), fail=timedelta(seconds=300))


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (1.0, Verdict.OK),
        (0.9, Verdict.OK),
        (0.89, Verdict.WARN),
        (0.5, Verdict.WARN),
        (0.49, Verdict.FAIL),
        (None, Verdict.NOT_JUDGED),
    ],
)
def test_a_low_value_fails(value: float | None, verdict: Verdict) -> None:
    assert judge("completeness", value, SHARE, "", low_is_bad=True).verdict is verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(60.0, Verdict.OK), (60.1, Verdict.WARN), (300.0, Verdict.WARN), (300.1, Verdict.FAIL)],
)
def test_a_high_value_fails(value: float, verdict: Verdict) -> None:
    assert judge("freshness", value, AGE, "", low_is_bad=False).verdict is verdict


def test_the_table_names_the_affected_devices() -> None:
    devices = [f"generator{number}" for number in range(1, 24)]
    result = judge("completeness", 0.2, SHARE, "23 of 25", low_is_bad=True, devices=devices)
    table = report_table([result])
    assert "completeness  fail" in table
    assert f"23 of 25: {', '.join(devices[:20])} and 3 more" in table
