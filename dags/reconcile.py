"""Healing: computes windows that were missed, left unsettled, or changed by late readings.

Every hour this Airflow DAG looks back HEADRACE_HEAL_HORIZON (24 hours) before its last run, and
computes the windows that need it, in pieces of sixty. To compute a whole range, start a run
manually with the parameters *start* and *stop*, or create a backfill, which starts one run for each
hour.

A range must lie within HEADRACE_RAW_RETENTION. It ends with the last window that has ended.

This DAG has its own pool, so that live windows always find a slot.
"""

from __future__ import annotations

from airflow.sdk import task_group

from headrace.orchestration.factory import reconcile_dag
from headrace.orchestration.pools import HEAL_POOL
from headrace.orchestration.spans import Span
from headrace.orchestration.stage_tasks import (
    await_ingest,
    compute,
    find_windows,
    with_retries,
)

with reconcile_dag(__doc__ or "") as dag:

    @task_group
    def heal(span: Span) -> None:
        """All stages for one piece: up to sixty windows, or more in a long range."""
        compute(span, pool=HEAL_POOL)

    heal.expand(span=with_retries(find_windows)(await_ingest(pool=HEAL_POOL).output))
