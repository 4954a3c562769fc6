"""The device profile: what one kind of device reports, and what is made of it.

A profile is one YAML file (``include/profiles/generators.yaml`` is the first). Nothing
about a kind of device stands anywhere else, so another fleet is another file.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from headrace.errors import ConfigurationError

__all__ = [
    "AlarmRule",
    "Duration",
    "FieldSpec",
    "MqttTopics",
    "Profile",
    "Thresholds",
    "load_profile",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PLACEHOLDER = "{id}"
_SILENT_RULE = "silent"
#: What a row carries besides the profile's fields, so no field may take these names.
_RESERVED = frozenset(
    {"time", "window_start", "window_end", "readings", "revision", "rule", "state", "since"}
)


def _parse_duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        msg = f"{value!r} is not a duration: write a number and ms, s, m, h or d, such as 15s"
        raise ValueError(msg)
    return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])


#: A length of time, written ``15s``, ``1m``, ``24h``, ``30d``.
Duration = Annotated[timedelta, BeforeValidator(_parse_duration)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
KafkaTopic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
BucketName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MqttTopics(_Model):
    """Where the devices publish. ``{id}`` is the level that carries a device's id."""

    topic: str
    status_topic: str

    @field_validator("topic", "status_topic")
    @classmethod
    def _one_placeholder(cls, value: str) -> str:
        levels = value.split("/")
        if levels.count(_PLACEHOLDER) != 1 or value.count("{") != 1:
            msg = f"{value!r} must hold exactly one level that is {_PLACEHOLDER}"
            raise ValueError(msg)
        if any("#" in level or ("+" in level and level != "+") for level in levels):
            msg = f"{value!r} may use + for a whole level, and nothing else as a wildcard"
            raise ValueError(msg)
        return value

    @cached_property
    def readings_filter(self) -> str:
        """Subscription that matches every device's readings."""
        return self.topic.replace(_PLACEHOLDER, "+")

    @cached_property
    def status_filter(self) -> str:
        """Subscription that matches every device's presence."""
        return self.status_topic.replace(_PLACEHOLDER, "+")


class KafkaTopics(_Model):
    """Names of the Kafka topics."""

    raw: KafkaTopic
    dead_letter: KafkaTopic
    status: KafkaTopic
    downsampled: KafkaTopic
    alarms: KafkaTopic


class Buckets(_Model):
    """Names of the InfluxDB buckets."""

    raw: BucketName
    downsampled: BucketName
    quality: BucketName


class FieldSpec(_Model):
    """One number that a device reports."""

    unit: str
    required: bool = True
    range: tuple[float, float]

    @model_validator(mode="after")
    def _range_has_an_inside(self) -> Self:
        if self.range[0] >= self.range[1]:
            msg = f"range {list(self.range)} must go from low to high"
            raise ValueError(msg)
        return self


class AlarmRule(_Model):
    """A rule that gives every downsampled row a level."""

    rule: Name
    writes: Name
    flux: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+\.flux$")]
    params: dict[Name, str | float] = Field(default_factory=dict)
    level: Annotated[str, StringConstraints(min_length=1)]
    normal: Annotated[str, StringConstraints(min_length=1)]

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        if self.level == self.normal:
            msg = f"level and normal of rule {self.rule} are both {self.level!r}"
            raise ValueError(msg)
        return self


class Silence(_Model):
    """When a device that used to report counts as silent."""

    after: Duration
    known: Duration


class Thresholds(_Model):
    """Levels of one quality check: a share for most checks, a duration for ages."""

    warn: float | Duration
    fail: float | Duration


class Quality(_Model):
    """Levels of the quality checks."""

    completeness: Thresholds
    readings: Thresholds
    out_of_range: Thresholds
    freshness: Thresholds
    clock_drift: Thresholds
    dead_letters: Thresholds
    adds_up: Thresholds


class Profile(_Model):
    """One kind of device: topics, fields, windows, alarms and quality levels."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    description: str = ""
    mqtt: MqttTopics
    id_field: Name
    measurement: Name
    topics: KafkaTopics
    buckets: Buckets
    fields: dict[Name, FieldSpec]
    interval: Duration
    tags: dict[Name, Annotated[str, StringConstraints(min_length=1)]] = Field(default_factory=dict)
    window: Duration
    grace: Duration = timedelta(milliseconds=500)
    alarms: tuple[AlarmRule, ...] = ()
    silent: Silence
    quality: Quality

    @field_validator("window")
    @classmethod
    def _window_divides_an_hour(cls, value: timedelta) -> timedelta:
        minutes = value / timedelta(minutes=1)
        if minutes < 1 or minutes != int(minutes) or 60 % minutes:
            msg = f"window {value} must be whole minutes that divide an hour (1m, 5m, 15m, 1h ...)"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _names_do_not_clash(self) -> Self:
        if not any(spec.required for spec in self.fields.values()):
            msg = "fields: at least one field must be required; windows are counted by it"
            raise ValueError(msg)
        taken = [self.id_field, *self.tags, *self.fields, *(rule.writes for rule in self.alarms)]
        for name in taken:
            if taken.count(name) > 1 or name in _RESERVED:
                msg = f"the name {name} stands twice, or is one that every row has anyway"
                raise ValueError(msg)
        rules = [rule.rule for rule in self.alarms]
        if len(set(rules)) != len(rules) or _SILENT_RULE in rules:
            msg = f"alarms: every rule needs a name of its own, other than {_SILENT_RULE}: {rules}"
            raise ValueError(msg)
        if not timedelta(0) <= self.grace < self.window:
            msg = f"grace {self.grace} must be 0s or more, and less than a window ({self.window})"
            raise ValueError(msg)
        if self.silent.after < self.window:
            msg = f"silent.after {self.silent.after} must be a window ({self.window}) or more"
            raise ValueError(msg)
        return self

    @cached_property
    def required_fields(self) -> tuple[str, ...]:
        """Names of the fields that every reading carries, in the profile's order."""
        return tuple(name for name, spec in self.fields.items() if spec.required)

    @cached_property
    def counted_field(self) -> str:
        """The field by which raw readings are counted: one that every reading has."""
        return self.required_fields[0]

    @property
    def sink_group(self) -> str:
        """Kafka consumer group of the sinks."""
        return f"headrace-sink-{self.name}"


def load_profile(path: Path) -> Profile:
    """Read and check a profile.

    Parameters
    ----------
    path
        The YAML file.

    Raises
    ------
    ConfigurationError
        If the file can't be read, or an entry is missing, unknown or wrong; the
        message names the file and the entry.
    """
    try:
        # Every task reads it twice, so by libyaml, which takes a tenth of the time.
        content: Any = msgspec.yaml.decode(path.read_bytes())
    except OSError as exc:
        msg = f"profile {path} can't be read: {exc.strerror}. Set HEADRACE_PROFILE to a profile"
        raise ConfigurationError(msg) from exc
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        msg = f"profile {path} is not YAML: {exc}"
        raise ConfigurationError(msg) from exc
    try:
        return Profile.model_validate(content)
    except ValidationError as exc:
        entries = "; ".join(
            f"{'.'.join(str(part) for part in error['loc']) or 'file'}: {error['msg']}"
            for error in exc.errors()
        )
        msg = f"profile {path}: {entries}"
        raise ConfigurationError(msg) from exc
