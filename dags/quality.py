"""Quality: what arrived in a quarter of an hour, against what the profile expects.

Completeness, readings against the interval, values out of range, freshness, clocks, dead
letters, and whether raw, downsampled and published rows add up. Each check has a level at
which it warns and one at which it fails its own run of this Airflow DAG, which mails a table.

Past hours can be backfilled: the checks are made of what is stored.
"""

from __future__ import annotations

from headrace.orchestration.factory import quality_dag
from headrace.orchestration.quality_task import check_quality

with quality_dag(__doc__ or "") as dag:
    check_quality()
