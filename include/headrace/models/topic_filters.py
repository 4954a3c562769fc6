"""MQTT topic filters: whether two of them can match the same topic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from headrace.errors import ConfigurationError

__all__ = ["check_disjoint", "check_filter", "overlap", "split_share"]

_SHARE_PARTS = 3
_MAX_BYTES = 65_535


def split_share(topic_filter: str) -> tuple[str, str]:
    """Split ``$share/<group>/<filter>`` into its prefix and the filter."""
    parts = topic_filter.split("/", 2)
    if parts[0] == "$share" and len(parts) == _SHARE_PARTS:
        return f"{parts[0]}/{parts[1]}/", parts[2]
    return "", topic_filter


def check_filter(topic_filter: str) -> None:
    """Check that a filter is one that MQTT allows.

    Raises
    ------
    ConfigurationError
        If it is not allowed. The message has the reason.
    """
    problem = ""
    _, bare = split_share(topic_filter)
    levels = bare.split("/")
    if not bare:
        problem = "it is empty"
    elif "\0" in bare or len(topic_filter.encode("utf-8", "replace")) > _MAX_BYTES:
        problem = f"it holds a NUL or is longer than {_MAX_BYTES} bytes"
    elif "#" in "/".join(levels[:-1]) or ("#" in bare and levels[-1] != "#"):
        problem = "# must be the last level, alone"
    elif any("+" in level and level != "+" for level in levels):
        problem = "+ must be alone in its level"
    elif bare == topic_filter and levels[0] == "$share":
        problem = "$share needs a group and a filter"
    elif bare != topic_filter and not topic_filter.split("/")[1].strip("+#"):
        problem = "the group of $share is empty"
    if problem:
        msg = f"the MQTT topic filter {topic_filter!r} is invalid: {problem}"
        raise ConfigurationError(msg)


def overlap(first: str, second: str) -> bool:
    """Return whether any topic matches both filters.

    Parameters
    ----------
    first, second
        Filters with ``+``, ``#`` and ``$share``. In MQTT, a wildcard at the beginning
        does not match topics that begin with ``$``.
    """
    one, other = (split_share(item)[1].split("/") for item in (first, second))
    for index, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if "#" in (mine, theirs):
            return index > 0 or not _is_special(mine, theirs)
        if mine == theirs:
            continue
        if "+" not in (mine, theirs) or (index == 0 and _is_special(mine, theirs)):
            return False
    # A filter that ends in /# matches the level above, too, but no topic is empty.
    shorter, longer = sorted((one, other), key=len)
    if len(shorter) == 1 and "" in (one[0], other[0]):
        return False
    return len(shorter) == len(longer) or longer[len(shorter) :] == ["#"]


def check_disjoint(filters: Sequence[str]) -> None:
    """Check that no two filters overlap, because a broker sends one copy per matching filter.

    Raises
    ------
    ConfigurationError
        If two filters overlap. The message names both.
    """
    for first, second in combinations(filters, 2):
        if overlap(first, second):
            msg = (
                f"the topic filters {first!r} and {second!r} overlap, and the MQTT broker would "
                "deliver messages twice. Check HEADRACE_MQTT_TOPICS and the topics of the profile"
            )
            raise ConfigurationError(msg)


def _is_special(first: str, second: str) -> bool:
    return first.startswith("$") or second.startswith("$")
