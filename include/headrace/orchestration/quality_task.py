"""The quality checks as an Airflow task."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from airflow.sdk import get_current_context, task

from headrace.errors import QualityError
from headrace.models.quality import Verdict, report_table
from headrace.models.window import WindowRange
from headrace.orchestration.connections import open_pipeline, task_settings
from headrace.orchestration.policies import call_limit
from headrace.orchestration.pools import LIVE_POOL
from headrace.orchestration.ranges import given_range, run_range
from headrace.orchestration.stage_tasks import stage_args
from headrace.stages.pipeline import Pipeline

__all__ = ["check_quality"]

_log = structlog.get_logger(__name__)

#: The checks wait no longer than this for a profile's grace; such a window is not checked.
_LONGEST_GRACE = timedelta(minutes=3)
#: The checks wait this long after the last window's end for its live run.
_LIVE_LIMIT = timedelta(seconds=45)


@task(**stage_args("check_quality"), pool=LIVE_POOL)
def check_quality() -> list[dict[str, Any]]:
    """Run the profile's checks over the run's windows. Fail if a check is at its fail level.

    The results are in the quality bucket, measurement `check`. If a check fails, a mail shows
    them as a table. A failed check never makes a window count as missing.
    """
    from headrace.stages.quality import check_quality as stage  # noqa: PLC0415
    from headrace.stages.quality import write_results  # noqa: PLC0415
    from headrace.stages.ranges import check_range  # noqa: PLC0415

    settings, profile = task_settings()
    context = get_current_context()
    windows = run_range(context, profile)
    if given_range(context, profile) is not None:
        now = datetime.now(UTC)
        check_range(windows, now, now - settings.raw_retention)
    with open_pipeline(call_limit("check_quality")) as pipeline:
        _await_live_run(windows, pipeline)
        drift = settings.max_clock_drift.total_seconds()
        results = stage(windows, settings.installed_at, drift, pipeline)
        write_results(windows, results, pipeline)
    table = report_table(results)
    _log.info("quality", windows=str(windows))
    for line in table.splitlines():
        _log.info(line)
    failed = [result.name for result in results if result.verdict is Verdict.FAIL]
    if failed:
        msg = f"{', '.join(failed)} at the fail level in {windows}\n\n{table}"
        raise QualityError(msg, checks=tuple(failed))
    return [asdict(result) for result in results]


def _await_live_run(windows: WindowRange, pipeline: Pipeline) -> None:
    """Wait for the live run of the last window, because both runs start at the same time."""
    last = WindowRange(windows.stop - windows.length, windows.stop, windows.length)
    grace = min(pipeline.profile.grace, _LONGEST_GRACE)
    while datetime.now(UTC) < windows.stop + grace + _LIVE_LIMIT:
        marker = pipeline.store.markers(last).get(last.start)
        if marker is not None and marker.published >= 0:
            return
        time.sleep(1)
