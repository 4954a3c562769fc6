"""Missing pools are created when Airflow starts; others are not changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow import plugins_manager, settings
from airflow.jobs.job import Job
from airflow.models.pool import Pool
from airflow.utils.session import create_session

from headrace.orchestration import pools
from headrace.orchestration.pools import POOLS, PoolListener


@pytest.fixture
def database() -> Iterator[None]:
    """A database with a table of pools."""
    assert settings.engine is not None
    tables = [Pool.metadata.tables[name] for name in ("team", Pool.__tablename__)]
    Pool.metadata.create_all(settings.engine, tables)
    yield
    Pool.metadata.drop_all(settings.engine, tables)


def slots() -> dict[str, int]:
    with create_session() as session:
        return {pool.pool: pool.slots for pool in session.query(Pool).all()}


@pytest.mark.usefixtures("database")
def test_missing_pools_are_created_and_others_kept() -> None:
    with create_session() as session:
        session.add(Pool(pool="headrace_heal", slots=9, include_deferred=False))
    for _ in range(2):
        PoolListener().on_starting(Job.__new__(Job))
        assert slots() == {"headrace_heal": 9, "headrace_publish": 1}


@pytest.mark.usefixtures("database")
def test_two_processes_that_start_at_once_create_a_pool_once() -> None:
    for _ in range(2):
        pools.create_pool("headrace_heal")
    assert slots() == {"headrace_heal": POOLS["headrace_heal"].slots}


def test_a_task_does_not_ask_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        pytest.fail("tasks can't reach the database")

    monkeypatch.setattr(pools, "create_missing_pools", never)
    PoolListener().on_starting(object())


def test_every_plugin_is_loaded() -> None:
    found, errors = plugins_manager._get_plugins()
    assert errors == {}
    names = {plugin.name for plugin in found}
    assert {"headrace_page", "headrace_pools", "headrace_preload"} <= names
    listeners = [listener for plugin in found for listener in plugin.listeners]
    assert any(isinstance(listener, PoolListener) for listener in listeners)
