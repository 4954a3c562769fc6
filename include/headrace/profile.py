"""The device profile describes the readings of one kind of device and their processing.

A profile is one YAML file, such as ``include/profiles/generators.yaml``. Another kind of device
needs another file and no other change.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from headrace.checks.durations import Lasting, duration_text
from headrace.checks.explain import explain
from headrace.checks.topics import PLACEHOLDER, DeviceTopic
from headrace.checks.values import (
    NotAllowedError,
    Prose,
    Range,
    Switch,
    Text,
)
from headrace.checks.yaml_file import parse_yaml
from headrace.errors import ConfigurationError
from headrace.models.topic_filters import overlap
from headrace.profile_quality import Quality, Thresholds
from headrace.profile_retries import Retries
from headrace.profile_rules import AlarmRule, Name, check_params

__all__ = [
    "AlarmRule",
    "FieldSpec",
    "MqttTopics",
    "Profile",
    "Thresholds",
    "load_profile",
]

_SILENT_RULE = "silent"
#: Reserved names, which rows, records or InfluxDB's results use.
_RESERVED = frozenset(
    {
        "time",
        "window_start",
        "window_end",
        "readings",
        "revision",
        "rule",
        "state",
        "since",
        "result",
        "table",
        # Columns of the Flux file that matches an optional field with the last reading.
        "whole",
        "part",
    }
)
#: Entry of an alarm record besides the device's id.
_ALARM_ENTRY = "alarm"


class _WindowLength(Lasting):
    """Whole minutes that divide an hour."""

    def __init__(self) -> None:
        super().__init__("1m", "1h")
        self.allowed = "whole minutes that divide an hour: 1m, 2m, 3m, 4m, 5m, 6m, 10m, 12m, 15m, "
        self.allowed += "20m, 30m or 1h"

    def read(self, value: object) -> timedelta:
        """Read a length."""
        length = super().read(value)
        if length % timedelta(minutes=1) or timedelta(hours=1) % length:
            raise NotAllowedError
        return length


KafkaTopic = Annotated[
    str,
    Text(
        "1 to 249 letters, digits, dots, hyphens and underscores, not beginning with two "
        "underscores",
        r"(?!__)(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}",
    ),
]
BucketName = Annotated[
    str,
    Text(
        "1 to 63 letters, digits, dots, hyphens and underscores, beginning with a letter or digit",
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MqttTopics(_Model):
    """Topics of the devices. ``{id}`` is the level with a device's id."""

    topic: Annotated[str, DeviceTopic()]
    status_topic: Annotated[str, DeviceTopic()]

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        if overlap(self.readings_filter, self.status_filter):
            msg = (
                f"mqtt: topic {self.topic} and status_topic {self.status_topic} have topics in "
                "common, so presence could not be told from readings"
            )
            raise ValueError(msg)
        return self

    @cached_property
    def readings_filter(self) -> str:
        """Filter that matches every device's readings."""
        return self.readings_of("+")

    @cached_property
    def status_filter(self) -> str:
        """Filter that matches every device's presence."""
        return self.status_of("+")

    def readings_of(self, device: str) -> str:
        """Topic of a device's readings, with its id or with what stands for one."""
        return self.topic.replace(PLACEHOLDER, device)

    def status_of(self, device: str) -> str:
        """Topic of a device's presence, with its id or with what stands for one."""
        return self.status_topic.replace(PLACEHOLDER, device)


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
    """A numeric field of a device's readings."""

    unit: Annotated[str, Text("text of 1 to 40 printable characters", longest=40)]
    required: Annotated[bool, Switch(from_text=False)] = True
    range: Annotated[tuple[float, float], Range()]


class _TagValue(Text):
    """Text that line protocol can represent."""

    def __init__(self) -> None:
        super().__init__("text of 1 to 200 printable characters that ends with no backslash")

    def read(self, value: object) -> str:
        """Read a value."""
        text = super().read(value)
        if text.endswith("\\") or len(text) > 200:  # noqa: PLR2004
            raise NotAllowedError
        return text


class Silence(_Model):
    """Times after which a known device counts as silent."""

    after: Annotated[timedelta, Lasting("1m", "7d")]
    known: Annotated[timedelta, Lasting("1m", "366d")]

    @model_validator(mode="after")
    def _after_lies_within_known(self) -> Self:
        if self.after > self.known:
            msg = (
                f"silent: after ({duration_text(self.after)}) must not be longer than known "
                f"({duration_text(self.known)})"
            )
            raise ValueError(msg)
        return self


class Profile(_Model):
    """One kind of device: topics, fields, windows, alarms, quality levels and retries."""

    name: Annotated[
        str,
        Text(
            "a lower-case letter, then lower-case letters, digits and underscores, at most 40 in "
            "all",
            r"[a-z][a-z0-9_]{0,39}",
        ),
    ]
    description: Annotated[str, Prose(2000)] = ""
    mqtt: MqttTopics
    id_field: Name
    measurement: Name
    topics: KafkaTopics
    buckets: Buckets
    fields: dict[Name, FieldSpec] = Field(max_length=500)
    interval: Annotated[timedelta, Lasting("1ms", "7d")]
    tags: dict[Name, Annotated[str, _TagValue()]] = Field(default_factory=dict, max_length=100)
    window: Annotated[timedelta, _WindowLength()]
    grace: Annotated[timedelta, Lasting("0s", "59m")] = timedelta(milliseconds=500)
    alarms: tuple[AlarmRule, ...] = Field((), max_length=100)
    silent: Silence
    quality: Quality
    retries: Retries = Retries()

    @field_validator("topics", "buckets")
    @classmethod
    def _destinations_differ(cls, value: KafkaTopics | Buckets) -> KafkaTopics | Buckets:
        for (one, mine), (other, yours) in combinations(dict(value).items(), 2):
            # Kafka's metrics do not distinguish the two characters, so Kafka refuses such pairs.
            if mine.replace(".", "_") == yours.replace(".", "_"):
                msg = f"{one} ({mine}) and {other} ({yours}) must differ in more than . and _"
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
                msg = (
                    f"the name {name} is used twice, or is reserved. id_field, tags, fields and "
                    "alarms.writes need different names, other than "
                    f"{', '.join(sorted(_RESERVED))}"
                )
                raise ValueError(msg)
        if self.id_field == _ALARM_ENTRY:
            msg = f"id_field: {_ALARM_ENTRY} is an entry of every record of an alarm"
            raise ValueError(msg)
        rules = [rule.rule for rule in self.alarms]
        if len(set(rules)) != len(rules) or _SILENT_RULE in rules:
            msg = f"alarms: every rule needs a unique name, other than {_SILENT_RULE}: {rules}"
            raise ValueError(msg)
        for rule in self.alarms:
            check_params(rule, self.fields)
        return self

    @model_validator(mode="after")
    def _durations_fit(self) -> Self:
        window = duration_text(self.window)
        if self.grace >= self.window:
            msg = f"grace: {duration_text(self.grace)} must be less than a window ({window})"
            raise ValueError(msg)
        for name, length in (("window", self.window), ("interval", self.interval)):
            if self.silent.after < length:
                msg = (
                    f"silent.after: {duration_text(self.silent.after)} must be {name} "
                    f"({duration_text(length)}) or more"
                )
                raise ValueError(msg)
        return self

    @cached_property
    def required_fields(self) -> tuple[str, ...]:
        """Names of the required fields, in the profile's order."""
        return tuple(name for name, spec in self.fields.items() if spec.required)

    @cached_property
    def counted_field(self) -> str:
        """A required field, by which raw readings are counted."""
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
        content = parse_yaml(path.read_bytes())
    except OSError as exc:
        msg = f"profile {path} can't be read: {exc.strerror}. Set HEADRACE_PROFILE to a profile"
        raise ConfigurationError(msg) from exc
    except ValueError as exc:
        msg = f"profile {path} is not YAML: {exc}"
        raise ConfigurationError(msg) from exc
    try:
        return Profile.model_validate(content)
    except ValidationError as exc:
        msg = f"profile {path}: {explain(exc, Profile, '.'.join)}"
        raise ConfigurationError(msg) from exc
