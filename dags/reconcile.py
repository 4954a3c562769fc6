"""Healing: windows that were missed, left unsettled, or changed by late readings.

Every hour this Airflow DAG looks back as far as HEADRACE_HEAL_HORIZON (24 hours) and computes what
differs, in pieces of sixty windows. A backfill of it computes its hours whole, one run an
hour; so does a run started by hand for any range, with the parameters *start* and *stop*.

It runs in a pool of its own, so that live windows always find a slot.
"""

from __future__ import annotations

from airflow.sdk import task_group

from headrace.orchestration.factory import reconcile_dag
from headrace.orchestration.spans import Span
from headrace.orchestration.stage_tasks import HEAL_POOL, await_ingest, compute, find_windows

with reconcile_dag(__doc__ or "") as dag:

    @task_group
    def heal(span: Span) -> None:
        """One piece: the stages of up to sixty windows."""
        compute(span, pool=HEAL_POOL)

    heal.expand(span=find_windows(await_ingest(pool=HEAL_POOL).output))
