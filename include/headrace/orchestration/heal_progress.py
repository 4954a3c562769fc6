"""Progress of the scheduled reconcile runs, kept in an Airflow Variable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog
from airflow.sdk import Variable

from headrace.errors import ConfigurationError
from headrace.models.window import parse_time, rfc3339
from headrace.settings import Settings

__all__ = ["heal_from", "set_healed_until"]

_log = structlog.get_logger(__name__)

_DESCRIPTION = "Time of the last scheduled run that looked for missing windows."
_CATCH_UP_LOGGED = timedelta(hours=2)


def heal_from(dag_id: str, now: datetime, settings: Settings) -> datetime:
    """Return the time from which a scheduled run searches for windows to heal.

    It is `Settings.heal_horizon` before the last scheduled run. The DAG itself does not
    catch up: after a stop of a month, one run covers the whole month instead of 720 runs.

    Parameters
    ----------
    dag_id
        The DAG.
    now
        The current time.
    settings
        Settings; the first run begins at ``installed_at``.
    """
    last = _healed_until(dag_id)
    if last is None:
        return min(settings.installed_at, now - settings.heal_horizon)
    if now - last > _CATCH_UP_LOGGED:
        _log.info("catching up", last_run=rfc3339(last))
    # The last run is in the future if its clock was fast.
    return min(last, now) - settings.heal_horizon


def set_healed_until(dag_id: str, now: datetime) -> None:
    """Store that a scheduled run has checked every window up to now."""
    Variable.set(_variable(dag_id), rfc3339(now), description=_DESCRIPTION)


def _healed_until(dag_id: str) -> datetime | None:
    text = Variable.get(_variable(dag_id), default=None)
    if text is None:
        return None
    try:
        return parse_time(str(text)).astimezone(UTC)
    except ConfigurationError as exc:
        _log.warning("unreadable Variable is ignored", variable=_variable(dag_id), error=str(exc))
        return None


def _variable(dag_id: str) -> str:
    return f"headrace_healed_until__{dag_id}"
