"""The stages as Airflow tasks. Airflow's UI shows their docstrings."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from airflow.sdk import get_current_context, task

from headrace.orchestration.alerts import on_failure, on_success
from headrace.orchestration.await_ingest import AwaitIngest
from headrace.orchestration.connections import open_pipeline, task_settings
from headrace.orchestration.heal_progress import heal_from, set_healed_until
from headrace.orchestration.policies import call_limit, stage_policy
from headrace.orchestration.pools import HEAL_POOL, LIVE_POOL, PUBLISH_POOL
from headrace.orchestration.ranges import given_range
from headrace.orchestration.spans import Span, span_of, windows_of

__all__ = [
    "await_ingest",
    "compute",
    "downsample",
    "evaluate_alarms",
    "find_windows",
    "republish",
    "stage_args",
    "with_retries",
]

_log = structlog.get_logger(__name__)

#: Time after a window's end during which it is left to its live run.
_LIVE = timedelta(seconds=30)


def stage_args(stage: str, *, push_xcom: bool = False) -> dict[str, Any]:
    """Return the arguments of a stage's tasks, the same in every DAG.

    Parameters
    ----------
    stage
        The stage.
    push_xcom
        Whether a later task needs the result. Other results are in the logs only: an XCom
        would be one more call that the next stage waits for.
    """
    return {
        "task_id": stage,
        "do_xcom_push": push_xcom,
        # The profile can change them: see `with_retries`.
        **stage_policy(stage).task_args(),
        "on_failure_callback": on_failure,
        "on_success_callback": on_success,
    }


def with_retries(stage: Any) -> Any:
    """Apply the profile's retries to a stage's task while a DAG is created."""
    _, profile = task_settings()
    return stage.override(**stage_policy(stage.kwargs["task_id"], profile).task_args())


def await_ingest(pool: str = LIVE_POOL) -> AwaitIngest:
    """Wait for the sink and return the windows of the run."""
    _, profile = task_settings()
    args = stage_args("await_ingest", push_xcom=True)
    args |= stage_policy("await_ingest", profile).task_args()
    # The task first waits for the profile's grace period.
    args["execution_timeout"] += profile.grace
    return AwaitIngest(
        **args,
        pool=pool,
        doc_md="Waits until the sink has written what Kafka held when the window closed, for "
        "at most HEADRACE_SETTLE_LIMIT. After that the window is computed *unsettled*, and "
        "the next reconcile run computes it again.",
    )


@task(**stage_args("find", push_xcom=True), pool=HEAL_POOL)
def find_windows(awaited: Span) -> list[Span]:
    """Find the windows to compute.

    A scheduled run looks for windows that are missing, unsettled, unpublished or changed by
    late readings. It looks back as far as HEADRACE_HEAL_HORIZON before the last scheduled
    run, so that the first run after a long stop finds everything, but never beyond
    HEADRACE_RAW_RETENTION. A backfill run or a manual run computes its whole range. Windows are
    computed in pieces of sixty; a long range has larger pieces.
    """
    from headrace.stages.clocks import earlier_clock  # noqa: PLC0415
    from headrace.stages.heal import expected_windows, windows_to_heal  # noqa: PLC0415
    from headrace.stages.ranges import check_range, cut_range  # noqa: PLC0415

    context = get_current_context()
    settings, profile = task_settings()
    if context["dag_run"].run_type == "scheduled" and given_range(context, profile) is None:
        with open_pipeline(call_limit("find")) as pipeline:
            now = earlier_clock(pipeline)
            begin = heal_from(context["ti"].dag_id, now, settings)
            windows = expected_windows(begin, now, _LIVE + profile.grace, pipeline)
            found = windows_to_heal(windows, settings.installed_at, pipeline) if windows else []
        set_healed_until(context["ti"].dag_id, now)
    else:
        windows = windows_of(awaited, profile)
        now = datetime.now(UTC)
        check_range(windows, now, now - settings.raw_retention)
        found = cut_range(windows)
    _log.info("windows to compute", ranges=[str(item) for item in found])
    return [span_of(item, settled=awaited["settled"]) for item in found]


@task(**stage_args("downsample"), pool=LIVE_POOL)
def downsample(span: Span) -> dict[str, Any]:
    """Compute one row for each device and window, inside InfluxDB, and record the windows."""
    from headrace.stages.downsample import downsample as stage  # noqa: PLC0415

    with open_pipeline(call_limit("downsample")) as pipeline:
        result = stage(
            windows_of(span, pipeline.profile), pipeline, settled=span["settled"], run=_run_name()
        )
    _log.info("downsampled", **span, **asdict(result))
    return asdict(result)


@task(**stage_args("evaluate_alarms"), pool=LIVE_POOL)
def evaluate_alarms(span: Span) -> dict[str, Any]:
    """Write the level of every row under every alarm rule of the profile, in Flux."""
    from headrace.stages.alarms import evaluate_alarms as stage  # noqa: PLC0415

    with open_pipeline(call_limit("evaluate_alarms")) as pipeline:
        result = stage(windows_of(span, pipeline.profile), pipeline)
    _log.info("evaluated alarms", **span, rows=result)
    return result


@task(**stage_args("republish"), pool=PUBLISH_POOL)
def republish(span: Span) -> dict[str, Any]:
    """Publish new and changed rows and alarm changes to Kafka, in one transaction per range.

    A repeated run publishes nothing twice, because it reads the published records first.
    """
    from headrace.stages.republish import republish as stage  # noqa: PLC0415

    with open_pipeline(call_limit("republish")) as pipeline:
        result = stage(windows_of(span, pipeline.profile), pipeline, run=_run_name())
    _log.info("republished", **span, **asdict(result))
    return asdict(result)


def _run_name() -> str:
    ti = get_current_context()["ti"]
    return f"{ti.dag_id}/{ti.run_id}"


def compute(span: Any, *, pool: str = LIVE_POOL, priority: int = 1) -> None:
    """Wire the stages of a span, for live, healing, backfill and manual runs alike.

    A later stage of one span has priority over an earlier stage of another span. Otherwise a
    run over a day would publish nothing before the whole day is downsampled.
    """

    def at(step: int) -> dict[str, Any]:
        return {"priority_weight": priority + step, "weight_rule": "absolute"}

    (
        with_retries(downsample).override(pool=pool, **at(0))(span)
        >> with_retries(evaluate_alarms).override(pool=pool, **at(1))(span)
        >> with_retries(republish).override(**at(2))(span)
    )
