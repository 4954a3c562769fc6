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
from headrace.orchestration.ranges import run_range
from headrace.orchestration.stage_tasks import stage_args
from headrace.stages.pipeline import Pipeline

__all__ = ["check_quality"]

_log = structlog.get_logger(__name__)

_QUERY_LIMIT = timedelta(minutes=2)
#: The live run of the last window is given so long after the window's end.
_LIVE_LIMIT = timedelta(seconds=45)


@task(**stage_args("check_quality"), pool="default_pool")
def check_quality() -> list[dict[str, Any]]:
    """Run the profile's checks over the run's windows, and fail if one is at its fail level.

    The outcomes are in the bucket of quality data, measurement `check`. A failed check is
    mailed as a table; it never makes a window count as missing.
    """
    from headrace.stages.quality import check_quality as stage  # noqa: PLC0415
    from headrace.stages.quality import write_results  # noqa: PLC0415

    settings, profile = task_settings()
    windows = run_range(get_current_context(), profile)
    with open_pipeline(_QUERY_LIMIT) as pipeline:
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
        raise QualityError(msg)
    return [asdict(result) for result in results]


def _await_live_run(windows: WindowRange, pipeline: Pipeline) -> None:
    """Give the live run of the last window its time: the two begin at the same moment."""
    from headrace.stages.markers import read_markers  # noqa: PLC0415

    last = WindowRange(windows.stop - windows.length, windows.stop, windows.length)
    while datetime.now(UTC) < windows.stop + _LIVE_LIMIT:
        marker = read_markers(last, pipeline).get(last.start)
        if marker is not None and marker.published >= 0:
            return
        time.sleep(1)
