"""Loads the stages once, in the processes that tasks are forked from.

What a task imports before it does anything costs it most of a second. What the scheduler
has loaded, the tasks that it forks find loaded. For that Airflow has to load its plugins at
the start (``AIRFLOW__CORE__LAZY_LOAD_PLUGINS=False``).
"""

from __future__ import annotations

import importlib
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class HeadracePreloadPlugin(AirflowPlugin):
    """Imports what the tasks will need."""

    name = "headrace_preload"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Import the modules that DAG files and tasks import."""
        del args, kwargs
        for module in (
            "headrace.orchestration.factory",
            "headrace.orchestration.stage_tasks",
            "headrace.orchestration.quality_task",
            "headrace.orchestration.cleanup_task",
            "headrace.stages.downsample",
            "headrace.stages.alarms",
            "headrace.stages.republish",
            "headrace.stages.heal",
            "headrace.stages.quality",
        ):
            importlib.import_module(module)
