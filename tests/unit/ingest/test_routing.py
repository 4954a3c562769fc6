"""The device is derived from the MQTT topic."""

from __future__ import annotations

import pytest

from headrace.errors import ConfigurationError
from headrace.ingest.routing import Router, filters_within, status_filters
from headrace.models.deadletter import Reason
from headrace.models.reading import ReadingCodec
from headrace.profile import MqttTopics, Profile


@pytest.fixture
def router(profile: Profile, codec: ReadingCodec) -> Router:
    return Router(profile.mqtt, codec)


def test_reading(router: Router) -> None:
    route = router[b"emergency_generator/generator1"]
    assert (route.device, route.key, route.is_status) == ("generator1", b"generator1", False)
    assert route.rejection is None
    assert router[b"emergency_generator/generator1"] is not route
    router.keep(b"emergency_generator/generator1", route)
    assert router[b"emergency_generator/generator1"] is route


def test_status(router: Router) -> None:
    route = router[b"emergency_generator/generator1/status"]
    assert (route.device, route.is_status) == ("generator1", True)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        (b"elsewhere/generator1", Reason.ID_MISMATCH),
        (b"emergency_generator/a/b/c", Reason.ID_MISMATCH),
        (b"emergency_generator/", Reason.ID_UNWRITABLE),
        (b"emergency_generator/\xff\xfe", Reason.ID_UNWRITABLE),
        (b"emergency_generator/tab\t", Reason.ID_UNWRITABLE),
        (b"emergency_generator/" + b"x" * 300, Reason.ID_UNWRITABLE),
    ],
)
def test_rejected_topics(router: Router, topic: bytes, reason: Reason) -> None:
    rejection = router[topic].rejection
    assert rejection is not None
    assert rejection.reason is reason


def test_only_accepted_topics_are_cached(router: Router) -> None:
    for number in range(1000):
        assert router[b"emergency_generator/g%d" % number].device == f"g{number}"
    assert not router
    long = b"emergency_generator/" + b"x" * 5000
    router.keep(long, router[long])
    assert not router


@pytest.mark.parametrize(
    "filters",
    [
        ("emergency_generator/+", "emergency_generator/gov"),
        ("emergency_generator/gov", "emergency_generator/gov"),
        ("emergency_generator/gov", "$share/a/emergency_generator/+"),
        ("$share/a/emergency_generator/+", "$share/b/emergency_generator/+"),
        ("emergency_generator/a", "emergency_generator/b", "emergency_generator/a"),
    ],
)
def test_overlapping_filters_are_refused_and_both_named(
    profile: Profile, filters: tuple[str, ...]
) -> None:
    """A broker sends one copy for each matching filter."""
    with pytest.raises(ConfigurationError, match="HEADRACE_MQTT_TOPICS") as error:
        filters_within(profile.mqtt, filters)
    assert repr(filters[0]) in str(error.value)
    assert repr(filters[-1]) in str(error.value)


def test_a_template_with_a_wildcard(codec: ReadingCodec) -> None:
    topics = MqttTopics(topic="+/pumps/{id}", status_topic="+/pumps/{id}/status")
    assert Router(topics, codec)[b"north/pumps/p1"].device == "p1"
    assert filters_within(topics, ("north/pumps/+",)) == ("north/pumps/+",)


def test_filters_of_a_bridge(profile: Profile) -> None:
    assert filters_within(profile.mqtt, ()) == ("emergency_generator/+",)
    own = ("emergency_generator/generator1", "$share/a/emergency_generator/generator2")
    assert filters_within(profile.mqtt, own) == own


@pytest.mark.parametrize(
    ("topic", "status", "readings", "expected"),
    [
        ("a/{id}", "a/{id}/s", ("a/x", "a/y"), ("a/x/s", "a/y/s")),
        ("a/{id}", "a/{id}/s", ("$share/g/a/+",), ("$share/g/a/+/s",)),
        ("+/{id}/r", "s/{id}/t", ("a/+/r", "b/+/r"), ("s/+/t",)),
        ("+/{id}/r", "s/{id}/t", ("a/x/r", "b/+/r"), ("s/+/t",)),
        ("+/{id}/r", "s/{id}/t", ("$share/g/a/x/r", "b/x/r"), ("$share/g/s/x/t",)),
        ("+/+/{id}", "+/{id}", ("a/x/+", "+/y/q"), ("+/+",)),
    ],
)
def test_filters_of_presence_do_not_overlap(
    topic: str, status: str, readings: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    topics = MqttTopics(topic=topic, status_topic=status)
    filters_within(topics, readings)
    assert status_filters(topics, readings) == expected


@pytest.mark.parametrize("item", ["#", "emergency_generator/#", "other/+", "emergency_generator"])
def test_filters_outside_the_profile_are_refused(profile: Profile, item: str) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_MQTT_TOPICS"):
        filters_within(profile.mqtt, (item,))
