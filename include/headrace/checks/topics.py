"""MQTT topics and topic filters."""

from __future__ import annotations

from headrace.checks.values import Check, NotAllowedError, is_printable
from headrace.errors import ConfigurationError
from headrace.models.topic_filters import check_disjoint, check_filter

__all__ = ["PLACEHOLDER", "DeviceTopic", "TopicFilters"]

_LONGEST_TOPIC = 1000
#: Level of a profile's topic that carries the device's id.
PLACEHOLDER = "{id}"


class TopicFilters(Check):
    """Comma-separated MQTT topic filters that do not overlap."""

    def __init__(self) -> None:
        super().__init__(
            "MQTT topic filters that do not overlap, comma-separated, such as plant/a/+,plant/b/+"
        )

    def read(self, value: object) -> tuple[str, ...]:
        """Read the filters."""
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        if not isinstance(value, tuple | list):
            raise NotAllowedError
        for item in value:
            if not isinstance(item, str) or len(item) > _LONGEST_TOPIC or not is_printable(item):
                raise NotAllowedError
        try:
            for item in value:
                check_filter(item)
            check_disjoint(value)
        except ConfigurationError as exc:
            raise ValueError(str(exc)) from exc
        return tuple(value)


class DeviceTopic(Check):
    """An MQTT topic with one level for the device's id."""

    def __init__(self) -> None:
        super().__init__(
            "an MQTT topic with exactly one level that is {id}, and + for any other level that "
            "varies, such as plant/+/pump/{id}"
        )

    def read(self, value: object) -> str:
        """Read a topic."""
        if not isinstance(value, str) or not is_printable(value) or len(value) > _LONGEST_TOPIC:
            raise NotAllowedError
        levels = value.split("/")
        if levels.count(PLACEHOLDER) != 1 or value.count("{") != 1 or value.count("}") != 1:
            raise NotAllowedError
        if value.startswith("$") or "#" in value:
            raise NotAllowedError
        if any("+" in level and level != "+" for level in levels):
            raise NotAllowedError
        return value
