"""Creates the pools of Headrace's tasks when Airflow starts."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from headrace.orchestration.pools import PoolListener


class HeadracePoolsPlugin(AirflowPlugin):
    """Registers the listener that creates missing pools."""

    name = "headrace_pools"
    listeners = [PoolListener()]  # noqa: RUF012 - Airflow says how
