"""Creates the pools of the tasks when Airflow starts.

Airflow never runs a task whose pool does not exist. A listener creates the pools, so that an
Airflow into which DAG files and plugins are copied needs no further step.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from airflow.listeners import hookimpl

__all__ = ["HEAL_POOL", "LIVE_POOL", "POOLS", "PUBLISH_POOL", "PoolListener", "TaskPool"]

_log = structlog.get_logger(__name__)

#: Airflow creates it.
LIVE_POOL = "default_pool"
#: Pool of everything except live windows, which therefore always find a slot.
HEAL_POOL = "headrace_heal"
#: The pool has one slot, so one task publishes at a time.
PUBLISH_POOL = "headrace_publish"


@dataclass(frozen=True)
class TaskPool:
    """A pool with its slots and its description in Airflow's UI."""

    slots: int
    description: str


POOLS = {
    HEAL_POOL: TaskPool(2, "Healing, backfills and clean-up; live windows have other slots"),
    PUBLISH_POOL: TaskPool(1, "Publishing to Kafka: one task at a time"),
}


class PoolListener:
    """Creates missing pools when a scheduler, DAG processor or triggerer starts.

    Existing pools are not changed, because an operator may have changed their slots.
    """

    @hookimpl
    def on_starting(self, component: object) -> None:
        """Create missing pools, but not in tasks, which can't reach the database."""
        if type(component).__module__ == "airflow.jobs.job":
            create_missing_pools()


def create_missing_pools() -> None:
    """Create the pools that do not exist."""
    # Tasks load this module, too, and have no database.
    from airflow.models.pool import Pool  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415

    with create_session() as session:
        present = set(session.scalars(select(Pool.pool).where(Pool.pool.in_(POOLS))))
    for name in POOLS.keys() - present:
        create_pool(name)


def create_pool(name: str) -> None:
    """Create a pool, unless another process of Airflow has just done so."""
    from airflow.models.pool import Pool  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415
    from sqlalchemy.exc import IntegrityError  # noqa: PLC0415

    pool = POOLS[name]
    missing = Pool(
        pool=name, slots=pool.slots, description=pool.description, include_deferred=False
    )
    try:
        with create_session() as session:
            session.add(missing)
    except IntegrityError:
        return
    _log.info("pool created", pool=name, slots=pool.slots)
