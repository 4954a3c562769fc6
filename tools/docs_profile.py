"""Generates the profile reference: every entry of the schema with its meaning."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headrace.profile import Profile
from headrace.profile_retries import Retries, StageRetries
from tools.docs_tables import duration_text, table

__all__ = ["MEANINGS", "entries", "profile"]

#: Meaning of each entry. A test fails if an entry of the schema is missing.
MEANINGS = {
    "name": "DAG ids, the sinks' consumer group and the publisher's name contain it. "
    "Lower-case letters, digits and underscores; starts with a letter.",
    "description": "Text for people.",
    "mqtt.topic": "Topic to which devices publish readings. `{id}` is the level with the "
    "device id; `+` stands for any other level. `#` is not allowed.",
    "mqtt.status_topic": "Topic of presence: devices publish `online` retained, and set `offline` "
    "retained as their Last Will. Devices that publish nothing are not counted as online.",
    "id_field": "Name of the device id in the payload, in rows, and of the tag in InfluxDB. "
    "The id in the payload must equal the id in the topic.",
    "measurement": "InfluxDB measurement of readings and rows.",
    "topics.raw": "Kafka topic of raw readings.",
    "topics.dead_letter": "Kafka topic of dead letters.",
    "topics.status": "Kafka topic of presence: the latest state of each device.",
    "topics.downsampled": "Kafka topic of rows.",
    "topics.alarms": "Kafka topic of alarm changes.",
    "buckets.raw": "InfluxDB bucket of raw readings, kept for `HEADRACE_RAW_RETENTION`.",
    "buckets.downsampled": "InfluxDB bucket of rows.",
    "buckets.quality": "InfluxDB bucket of markers, quality checks and alarm changes.",
    "fields.*.unit": "Unit, for people.",
    "fields.*.required": "Whether every reading must have this number. At least one field must be "
    "required, because windows are counted by the first such field. Each optional field costs "
    "downsampling one more query.",
    "fields.*.range": "Plausible range, both ends included. A value outside is stored, and counted "
    "by the quality check `out_of_range`.",
    "interval": "A device reports at least this often. The quality check `readings` uses it.",
    "tags.*": "Fixed tags of every row.",
    "window": "Length of a window: whole minutes that divide an hour, such as `1m`, `5m`, `15m`.",
    "grace": "Time between the end of a window and reading Kafka's end offsets, so that readings "
    "in transit are included. Shorter than a window.",
    "alarms.*.rule": "Name of the rule, in alarm changes. Unique; not `silent`.",
    "alarms.*.writes": "String field of the row for the rule's level.",
    "alarms.*.flux": "File in `include/flux/` that computes the level.",
    "alarms.*.params": "Parameters of the rule. `alarm_threshold.flux` takes `field`, and `below`, "
    "`above` or both.",
    "alarms.*.level": "Level that is an alarm.",
    "alarms.*.normal": "Level without alarm. A new device starts with it.",
    "silent.after": "A known device without rows for this long raises the alarm `silent`. "
    "At least one window.",
    "silent.known": "A device counts as known for this long after its last row.",
    "quality.completeness": "Share of the known devices that reported; low is bad.",
    "quality.readings": "Share of the readings that `interval` implies; low is bad.",
    "quality.out_of_range": "Share of the values outside their range.",
    "quality.freshness": "Age of the newest reading at the end of the checked range; a duration.",
    "quality.clock_drift": "Share of the devices whose `time` is off by more than "
    "`HEADRACE_MAX_CLOCK_DRIFT`.",
    "quality.dead_letters": "Share of the arrived readings that were rejected.",
    "quality.adds_up": "Number of windows whose raw readings, rows and published rows disagree.",
    "retries.*.tries": "Total tries of a stage, including the first one. `*` is `await_ingest`, "
    "`find`, `downsample`, `evaluate_alarms`, `republish` or `check_quality`.",
    "retries.*.delay": "Wait before the second try.",
    "retries.*.backoff": "Ratio of each wait to the one before; 1 makes all equal.",
    "retries.*.max_delay": "Longest wait; not shorter than `delay`.",
    "retries.*.limit": "Time limit of one try. The time limit of a stage's calls to InfluxDB "
    "is a part of it.",
}
_OF_ITS_STAGE = "of its [stage](retries.md)"
_SCALARS = {
    str: "text",
    float: "number",
    int: "number",
    bool: "`true` or `false`",
    timedelta: "duration",
}


def profile() -> str:
    """Return the table of all entries of a profile."""
    rows = [
        [f"`{path}`", kind, default, MEANINGS.get(path, "")] for path, kind, default in entries()
    ]
    return table(["entry", "value", "default", "meaning"], rows)


def entries(model: type[BaseModel] = Profile, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the entries of a schema: path, kind of value, and default or ``required``."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        annotation = field.annotation
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        inner = next((item for item in arguments if _is_model(item)), None)
        if path.startswith("quality."):
            yield path, "`{warn, fail}`", "required"
        elif annotation is Retries:
            for entry, inside in StageRetries.model_fields.items():
                yield f"{path}.*.{entry}", _kind(inside.annotation), _OF_ITS_STAGE
        elif _is_model(annotation):
            yield from entries(typing.cast("type[BaseModel]", annotation), f"{path}.")
        elif inner is not None:
            yield from entries(inner, f"{path}.*.")
        elif origin is dict and arguments[-1] is not Any and not _is_union(arguments[-1]):
            yield f"{path}.*", "text", "none"
        else:
            yield path, _kind(annotation), _default(field)


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in {typing.Union, types.UnionType}


def _kind(annotation: object) -> str:
    if typing.get_origin(annotation) is tuple:
        return "`[low, high]`"
    if typing.get_origin(annotation) is dict:
        return "names and values"
    return _SCALARS.get(typing.cast("type", annotation), "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, timedelta):
        return f"`{duration_text(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value else "none"
