"""Rules for every DAG and every task."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, RetryAction
from airflow.serialization.serialized_objects import DagSerialization

from headrace.errors import (
    AccessDeniedError,
    BadQueryError,
    ConfigurationError,
    ServerUnavailableError,
)
from headrace.orchestration.alerts import on_failure, on_success
from headrace.orchestration.factory import reconcile_dag
from headrace.orchestration.policies import call_limit
from headrace.orchestration.pools import POOLS
from headrace.profile import load_profile
from headrace.profile_retries import Retries
from tests.dags.conftest import PROJECT

DAG_FILES = sorted((PROJECT / "dags").glob("*.py"))
LIVE, HEAL = "generators_windows", "generators_reconcile"
QUALITY, CLEANUP = "generators_quality", "airflow_cleanup"
STAGES = ["downsample", "evaluate_alarms", "republish"]


def every_task(dag_bag: DagBag) -> list[tuple[str, Any]]:
    return [(dag.dag_id, task) for dag in dag_bag.dags.values() for task in dag.tasks]


def test_every_file_is_parsed(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == {LIVE, HEAL, QUALITY, CLEANUP}


def test_dags_need_the_time_of_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEADRACE_INSTALLED_AT")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="HEADRACE_INSTALLED_AT is not set: `make env`"):
        reconcile_dag("Heals.")


def test_dags_can_be_serialised(dag_bag: DagBag) -> None:
    for dag in dag_bag.dags.values():
        data = DagSerialization.to_dict(dag)
        again = DagSerialization.from_dict(json.loads(json.dumps(data)))
        assert again.task_dict.keys() == dag.task_dict.keys()


def test_every_dag_is_described(dag_bag: DagBag) -> None:
    for dag in dag_bag.dags.values():
        assert "headrace" in dag.tags
        assert dag.doc_md
        assert dag.description
        assert dag.dagrun_timeout


def test_every_task_has_a_policy(dag_bag: DagBag) -> None:
    for dag_id, task in every_task(dag_bag):
        where = f"{dag_id}.{task.task_id}"
        assert task.owner == "headrace", where
        assert task.doc_md, where
        assert task.retries >= 1, where
        assert task.retry_delay <= timedelta(minutes=5), where
        assert task.retry_policy is not None, where
        assert task.execution_timeout is not None, where


def test_every_task_has_the_mail_callbacks(dag_bag: DagBag) -> None:
    for dag_id, task in every_task(dag_bag):
        where = f"{dag_id}.{task.task_id}"
        assert list(task.on_failure_callback) == [on_failure], where
        assert list(task.on_success_callback) == [on_success], where


def test_permanent_errors_are_not_retried(dag_bag: DagBag) -> None:
    for dag_id, task in every_task(dag_bag):
        policy = task.retry_policy
        for error in (AccessDeniedError("x"), BadQueryError("x")):
            assert policy.evaluate(error, 1, 5).action is RetryAction.FAIL, dag_id
        decision = policy.evaluate(ServerUnavailableError("x"), 1, 5)
        assert decision.action is not RetryAction.FAIL, dag_id


def test_a_profile_changes_the_retries_of_every_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())
    own = {"tries": 41, "delay": "7s", "backoff": 1.5, "max_delay": "11m", "limit": "59m"}
    content["retries"] = dict.fromkeys(Retries.model_fields, own)
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("HEADRACE_PROFILE", str(path))
    monkeypatch.chdir(tmp_path)
    bag = DagBag(str(PROJECT / "dags"))
    assert set(bag.dags) == {LIVE, HEAL, QUALITY, CLEANUP}
    for dag_id, task in every_task(bag):
        if dag_id == CLEANUP:
            continue
        stage = task.task_id.split(".")[-1]
        where = f"{dag_id}.{stage}"
        assert task.retries == 40, where
        assert task.retry_delay == timedelta(seconds=7), where
        assert task.retry_exponential_backoff == 1.5, where
        assert task.max_retry_delay == timedelta(minutes=11), where
        grace = timedelta(milliseconds=500) if stage == "await_ingest" else timedelta(0)
        assert task.execution_timeout == timedelta(minutes=59) + grace, where
        # The run's own limit leaves all tries their time.
        assert bag.dags[dag_id].dagrun_timeout > timedelta(hours=6), where
        assert f"| `{stage}` | 41 | 7s | x 1.5, at most 11m | 59m |" in bag.dags[dag_id].doc_md
    assert bag.dags[LIVE].max_active_runs > 60


def test_every_dag_shows_the_retries_of_its_stages(dag_bag: DagBag) -> None:
    for dag_id, task in every_task(dag_bag):
        assert f"| `{task.task_id.split('.')[-1]}` | {task.retries + 1} |" in (
            dag_bag.dags[dag_id].doc_md or ""
        )


def test_calls_to_influxdb_take_a_share_of_the_limit() -> None:
    profile = load_profile(PROJECT / "include/profiles/generators.yaml")
    longer = profile.retries.downsample.model_copy(update={"limit": timedelta(minutes=50)})
    slow = profile.model_copy(
        update={"retries": profile.retries.model_copy(update={"downsample": longer})}
    )
    assert call_limit("downsample")(profile) == timedelta(minutes=3)
    assert call_limit("downsample")(slow) == timedelta(minutes=30)
    assert call_limit("republish")(slow) == timedelta(minutes=3)


def test_every_pool_is_created(dag_bag: DagBag) -> None:
    used = {task.pool for _, task in every_task(dag_bag)} - {"default_pool"}
    assert used == set(POOLS)
    assert POOLS["headrace_publish"].slots == 1
    # What is created before Airflow starts is the same.
    pools = json.loads((PROJECT / "native/config/pools.json").read_text())
    assert pools == {
        name: {"slots": pool.slots, "description": pool.description, "include_deferred": False}
        for name, pool in POOLS.items()
    }


def test_live_windows_and_healing_share_the_stages(dag_bag: DagBag) -> None:
    live, heal = dag_bag.dags[LIVE], dag_bag.dags[HEAL]
    assert [task.task_id for task in live.topological_sort()] == ["await_ingest", *STAGES]
    healing = [task.task_id for task in heal.topological_sort()]
    for stage in STAGES:
        assert f"heal.{stage}" in healing
        healed = heal.get_task(f"heal.{stage}")
        assert live.get_task(stage).python_callable.__code__ is healed.python_callable.__code__


def test_only_live_windows_use_the_live_pool(dag_bag: DagBag) -> None:
    for dag_id, task in every_task(dag_bag):
        if task.pool == "default_pool":
            assert dag_id in (LIVE, QUALITY)


def interval(dag: DAG, run_after: datetime) -> tuple[datetime, datetime]:
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    found = timetable.infer_manual_data_interval(run_after=run_after)
    return found.start, found.end


@pytest.mark.parametrize(
    ("dag_id", "start", "end"),
    [
        (LIVE, (12, 36), (12, 37)),
        (HEAL, (11, 5), (12, 5)),
        (QUALITY, (12, 15), (12, 30)),
    ],
)
def test_runs_have_the_interval_that_has_just_ended(
    dag_bag: DagBag, dag_id: str, start: tuple[int, int], end: tuple[int, int]
) -> None:
    found = interval(dag_bag.dags[dag_id], pendulum.datetime(2026, 6, 1, 12, 37, 20))
    expected = [datetime(2026, 6, 1, *moment, tzinfo=UTC) for moment in (start, end)]
    assert list(found) == expected


def test_no_dag_uses_catchup(dag_bag: DagBag) -> None:
    """One reconcile run covers everything that was missed."""
    assert not any(dag.catchup for dag in dag_bag.dags.values())


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_a_dag_file_contains_no_logic(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) < 100
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    # A task group is wiring; anything with a decision or a loop in it is logic.
    for function in functions:
        assert not any(
            isinstance(node, ast.If | ast.For | ast.While | ast.Try) for node in ast.walk(function)
        )


def test_only_orchestration_imports_airflow() -> None:
    for path in (PROJECT / "include" / "headrace").rglob("*.py"):
        if "orchestration" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "airflow" for name in names), path
            assert not any("headrace.orchestration" in name for name in names), path
