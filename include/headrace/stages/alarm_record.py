"""Stores alarm changes in InfluxDB, to look up which alarms are active.

Consumers get the changes from Kafka, each one once and in order. To find the active alarms
there, weeks of changes would have to be read; here it is one value per device and rule.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from influxdb_client import Point

from headrace.models.alarm import SILENT, AlarmChange, AlarmState, PublishedChange
from headrace.models.reading import epoch_ns
from headrace.models.window import parse_time, rfc3339
from headrace.stages.pipeline import Pipeline

__all__ = ["read_standing", "write_changes"]

_MEASUREMENT = "alarm"
#: Alarms that were raised longer ago are not shown.
_LOOK_BACK = timedelta(days=365)


def write_changes(changes: Collection[PublishedChange], pipeline: Pipeline) -> None:
    """Write published changes to the record, over earlier revisions of them.

    Called after they were published, so that it never shows an alarm that consumers do not
    have.
    """
    if not changes:
        return
    profile = pipeline.profile
    lines = [_point(profile.id_field, item.change).to_line_protocol() for item in changes]
    pipeline.influx.write(profile.buckets.quality, "\n".join(lines).encode())


def _point(id_field: str, change: AlarmChange) -> Point:
    point = Point(_MEASUREMENT)
    point.tag(id_field, change.device).tag("rule", change.rule)
    withdrawn = change.state is AlarmState.WITHDRAWN
    fields = {"state": change.state.value, "alarm": change.level, "since": rfc3339(change.since)}
    for name, value in fields.items():
        # Queries for the last value skip withdrawn changes.
        point.field(name, change.state.value if withdrawn else value)
    point.time(epoch_ns(change.window_start))
    return point


def read_standing(now: datetime, pipeline: Pipeline) -> list[AlarmChange]:
    """Return the changes that raised the active alarms, the newest first.

    Alarms of rules that the profile no longer has are left out: nothing clears them any more.
    """
    rules = {SILENT, *(rule.rule for rule in pipeline.profile.alarms)}
    params = {"start": now - _LOOK_BACK, "stop": now + timedelta(days=1)}
    standing = [
        AlarmChange(
            device=row[pipeline.profile.id_field],
            rule=row["rule"],
            level=row["alarm"],
            state=AlarmState(row["state"]),
            since=parse_time(row["since"]),
            window_start=row["_time"],
        )
        for row in pipeline.run("standing_alarms.flux", params)
        if row["rule"] in rules
    ]
    standing.sort(key=lambda change: change.device)
    return sorted(standing, key=lambda change: change.since, reverse=True)
