"""Overlapping filters, compared with matching every topic of a small alphabet."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from headrace.errors import ConfigurationError
from headrace.models.topic_filters import check_disjoint, check_filter, overlap

_LEVELS = ["a", "b", "", "$s"]
TOPICS = ["/".join(levels) for depth in range(1, 5) for levels in product(_LEVELS, repeat=depth)]


def matches(topic_filter: str, topic: str) -> bool:
    """Match as paho does: no wildcard matches a topic that begins with $."""
    return bool(topic) and topic_matches_sub(topic_filter, topic)


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.sampled_from([*_LEVELS, "+", "+"]), min_size=1, max_size=3))
    if draw(st.booleans()):
        levels.append("#")
    elif levels == [""]:
        levels = ["a"]
    return "/".join(levels)


@example(first="/#", second="+", share="")
@given(first=filters(), second=filters(), share=st.sampled_from(["", "$share/group/"]))
def test_filters_overlap_exactly_if_some_topic_matches_both(
    first: str, second: str, share: str
) -> None:
    common = [topic for topic in TOPICS if matches(first, topic) and matches(second, topic)]
    assert overlap(share + first, second) == bool(common)
    assert overlap(second, share + first) == bool(common)


def test_filters_that_overlap_are_both_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'fleet/\+' and '\$share/g/fleet/gov' overlap"):
        check_disjoint(["other/#", "fleet/+", "$share/g/fleet/gov"])
    check_disjoint(["fleet/+", "fleet/+/status", "other/#"])
    check_disjoint(["#", "$SYS/#"])


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "a/#/b",
        "a#",
        "#/a",
        "a/b+",
        "+a",
        "a\0b",
        "x" * 70_000,
        "$share",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
    ],
)
def test_invalid_filters_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="topic filter"):
        check_filter(wrong)


@pytest.mark.parametrize("right", ["a", "/", "+", "#", "a/+/#", "/a", "$share/g/a/+", "ä/漢"])
def test_valid_filters_are_accepted(right: str) -> None:
    check_filter(right)
