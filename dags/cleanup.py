"""Clean-up: deletes Airflow's records and logs that are older than 30 days.

It concerns all DAGs of this Airflow, and needs the address of Airflow's database in the Connection
`airflow_metadata`. Without the Connection it deletes nothing.
"""

from __future__ import annotations

from headrace.orchestration.cleanup_task import cleanup
from headrace.orchestration.factory import cleanup_dag

with cleanup_dag(__doc__ or "") as dag:
    cleanup()
