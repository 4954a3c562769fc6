"""Reads active alarms from the record of alarm changes.

Consumers get each change once and in order from Kafka. To find active alarms there, weeks of
changes would have to be read; the store has one value per device and rule.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.models.alarm import SILENT, AlarmChange
from headrace.stages.pipeline import Pipeline

__all__ = ["read_standing"]

#: Alarms older than this are not shown.
_LOOK_BACK = timedelta(days=365)


def read_standing(now: datetime, pipeline: Pipeline) -> list[AlarmChange]:
    """Return the changes that raised the active alarms, the newest first.

    Alarms of removed rules are left out, because nothing clears them any more.
    """
    rules = {SILENT, *(rule.rule for rule in pipeline.profile.alarms)}
    active = pipeline.store.active_alarms(now - _LOOK_BACK, now + timedelta(days=1))
    standing = [change for change in active if change.rule in rules]
    standing.sort(key=lambda change: change.device)
    return sorted(standing, key=lambda change: change.since, reverse=True)
