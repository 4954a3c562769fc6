"""The link from a task instance to its windows on the page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import Session

from headrace.errors import ConfigurationError
from headrace.models.window import WindowRange, rfc3339
from headrace.orchestration.await_ingest import AwaitIngest
from headrace.orchestration.connections import task_settings
from headrace.orchestration.factory import quality_dag_id, reconcile_dag_id, windows_dag_id
from headrace.orchestration.page import page_path
from headrace.orchestration.ranges import run_range
from headrace.orchestration.spans import windows_of
from headrace.profile import Profile

__all__ = ["WindowLink"]

_FINDER = "find"
_NOT_MAPPED = -1


class WindowLink(BaseOperatorLink):
    """Links to the page, which highlights the windows of the task instance.

    The api-server computes it when a user opens the task instance, so the link exists before the
    task runs.
    """

    # The operators of the stages. Tasks of other DAGs have no link.
    operators = [AwaitIngest, _PythonDecoratedOperator]  # noqa: RUF012 - Airflow says how

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Windows"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the path of the page for a task instance; empty for other DAGs."""
        del operator
        _, profile = task_settings()
        ours = (windows_dag_id(profile), reconcile_dag_id(profile), quality_dag_id(profile))
        if ti_key.dag_id not in ours:
            return ""
        with create_session() as session:
            windows = _windows_of_task(session, ti_key, profile)
        if windows is None:
            return ""
        query = {"start": rfc3339(windows.start), "stop": rfc3339(windows.stop)}
        return f"{page_path()}?{urlencode(query)}"


def _windows_of_task(
    session: Session, ti_key: TaskInstanceKey, profile: Profile
) -> WindowRange | None:
    if ti_key.map_index != _NOT_MAPPED:
        return _windows_of_piece(session, ti_key, profile)
    run = session.execute(
        select(
            DagRun.conf, DagRun.data_interval_start, DagRun.data_interval_end, DagRun.run_after
        ).where(DagRun.dag_id == ti_key.dag_id, DagRun.run_id == ti_key.run_id)
    ).one_or_none()
    if run is None:
        return None
    context = {
        "params": run.conf,
        "data_interval_start": run.data_interval_start,
        "data_interval_end": run.data_interval_end,
        "dag_run": run,
    }
    try:
        return run_range(context, profile)
    except ConfigurationError:
        # The task fails for the same reason and reports it.
        return None


def _windows_of_piece(
    session: Session, ti_key: TaskInstanceKey, profile: Profile
) -> WindowRange | None:
    """Return the windows of one piece of a reconcile run, from the XCom of its first task."""
    pieces = XComModel.get_many(
        run_id=ti_key.run_id, key="return_value", task_ids=_FINDER, dag_ids=ti_key.dag_id, limit=1
    )
    found = session.scalars(pieces).first()
    if found is None:
        return None
    spans = XComModel.deserialize_value(found)
    return windows_of(spans[ti_key.map_index], profile)
