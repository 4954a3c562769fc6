"""Quality: compares readings and rows with the expectations of the profile.

A run covers a quarter of an hour, or up to an hour if the profile's windows are longer. The
checks: completeness, number of readings, values out of range, freshness, clocks, dead letters,
and whether raw, downsampled and published rows add up. Each check has a level at which it warns
and a level at which it fails. A failed check fails the run of this Airflow DAG, and a mail
shows all results in a table.

Past hours can be backfilled: the checks use stored data only.
"""

from __future__ import annotations

from headrace.orchestration.factory import quality_dag
from headrace.orchestration.quality_task import check_quality
from headrace.orchestration.stage_tasks import with_retries

with quality_dag(__doc__ or "") as dag:
    with_retries(check_quality)()
