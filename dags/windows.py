"""Live windows: computed and published as soon as they have closed.

`await_ingest` waits until the sink has written what Kafka held when the window closed,
`downsample` makes one row a device inside InfluxDB, `evaluate_alarms` gives each row its
levels, and `republish` hands rows and changes of alarms to Kafka in one transaction.

A run that fails leaves its window to the next reconcile. This Airflow DAG never catches up.
"""

from __future__ import annotations

from headrace.orchestration.factory import windows_dag
from headrace.orchestration.stage_tasks import await_ingest, compute

with windows_dag(__doc__ or "") as dag:
    compute(await_ingest().output, priority=10)
