"""Housekeeping: Airflow's own records and logs of more than 30 days ago are deleted."""

from __future__ import annotations

from headrace.orchestration.cleanup_task import cleanup
from headrace.orchestration.factory import cleanup_dag

with cleanup_dag(__doc__ or "") as dag:
    cleanup()
