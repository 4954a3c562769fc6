"""Changes of alarms as a record in InfluxDB, from which those that stand are asked quickly.

Consumers get changes from Kafka, in order and once. Which alarms stand at the moment would
there be a question to weeks of changes; here it is one value a device and rule.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from influxdb_client import Point

from headrace.models.alarm import AlarmChange, AlarmState, PublishedChange
from headrace.models.reading import epoch_ns
from headrace.models.window import parse_time, rfc3339
from headrace.stages.pipeline import Pipeline

__all__ = ["read_standing", "write_changes"]

_MEASUREMENT = "alarm"
#: An alarm that has stood for longer is no news to anybody.
_LOOK_BACK = timedelta(days=365)


def write_changes(changes: Collection[PublishedChange], pipeline: Pipeline) -> None:
    """Record changes, over what was recorded of them before.

    Done before they are published: what is recorded and then not published is found
    different again by the next attempt, and so recorded again.
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
        # What is withdrawn is passed over by every query that asks for the last value.
        point.field(name, change.state.value if withdrawn else value)
    point.time(epoch_ns(change.window_start))
    return point


def read_standing(now: datetime, pipeline: Pipeline) -> list[AlarmChange]:
    """The changes that raised the alarms that stand, the newest first."""
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
    ]
    standing.sort(key=lambda change: change.device)
    return sorted(standing, key=lambda change: change.since, reverse=True)
