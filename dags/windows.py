"""Live windows: computes and publishes each window as soon as it has ended.

1. `await_ingest` waits until the sink has written all records that Kafka had at the window's end.
2. `downsample` writes one row for each device, inside InfluxDB.
3. `evaluate_alarms` writes the alarm levels of each row.
4. `republish` publishes rows and alarm changes to Kafka in one transaction.

If a run fails, the next reconcile run computes its window. This Airflow DAG never catches up.
Eight runs can retry at the same time, besides those that wait for the sink, and more if the profile
sets longer retries. If more are active, Airflow skips windows, and the reconcile DAG computes
them.
"""

from __future__ import annotations

from headrace.orchestration.factory import windows_dag
from headrace.orchestration.stage_tasks import await_ingest, compute

with windows_dag(__doc__ or "") as dag:
    compute(await_ingest().output, priority=10)
