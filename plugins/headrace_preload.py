"""Imports the stages once, in the process that forks the tasks.

Imports would take each task almost a second. Forked tasks inherit the imported modules. Airflow
must load its plugins at the start for this (``AIRFLOW__CORE__LAZY_LOAD_PLUGINS=False``).
"""

from __future__ import annotations

import importlib
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class HeadracePreloadPlugin(AirflowPlugin):
    """Imports the modules that tasks need."""

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
