"""MQTT topics and topic filters."""

from __future__ import annotations

from itertools import combinations

from headrace.checks.values import Check, NotAllowedError, is_printable

__all__ = ["PLACEHOLDER", "DeviceTopic", "TopicFilters", "filters_overlap"]

_LONGEST_TOPIC = 1000
#: Level of a profile's topic that carries the device's id.
PLACEHOLDER = "{id}"


class TopicFilters(Check):
    """MQTT topic filters, comma-separated, that have no topic in common."""

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
            _check_filter(item)
        for one, other in combinations(value, 2):
            if filters_overlap(one, other):
                msg = f"{one} and {other} overlap, so their readings would be stored twice"
                raise ValueError(msg)
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


def _check_filter(item: object) -> None:
    if not isinstance(item, str) or not 0 < len(item) <= _LONGEST_TOPIC or not is_printable(item):
        raise NotAllowedError
    levels = item.split("/")
    for index, level in enumerate(levels):
        if len(level) > 1 and ("+" in level or "#" in level):
            msg = f"{item}: + and # stand for whole levels"
            raise ValueError(msg)
        if level == "#" and index < len(levels) - 1:
            msg = f"{item}: # stands for the last levels only"
            raise ValueError(msg)


def filters_overlap(one: str, other: str) -> bool:
    """Whether two filters have a topic in common."""
    first, second = _bare(one), _bare(other)
    for mine, yours in zip(first, second, strict=False):
        if "#" in (mine, yours):
            return True
        if mine != yours and "+" not in (mine, yours):
            return False
    if len(first) == len(second):
        return True
    # `a/#` matches `a`, too.
    longer = max(first, second, key=len)
    shorter = min(len(first), len(second))
    return longer[shorter:] == ["#"]


def _bare(item: str) -> list[str]:
    """Levels of a filter, without the prefix of a shared subscription."""
    levels = item.split("/")
    return levels[2:] if levels[0] == "$share" and len(levels) > 2 else levels  # noqa: PLR2004
