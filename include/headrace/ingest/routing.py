"""Maps MQTT topics to devices, and determines the topic filters of a bridge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from headrace.checks.topics import PLACEHOLDER
from headrace.errors import ConfigurationError
from headrace.models.deadletter import Reason, RejectedReadingError, Rejection
from headrace.models.reading import ReadingCodec
from headrace.models.topic_filters import check_disjoint, overlap, split_share
from headrace.profile import MqttTopics
from headrace.storage.mqtt_stream import MALFORMED_TOPIC

__all__ = ["Route", "Router", "filters_within", "status_filters"]

#: Maximum number of cached topics. Topics of a larger fleet are sometimes parsed again.
_MAX_ROUTES = 65_536
#: Longer topics are not cached, to limit the memory.
_MAX_KEPT_TOPIC_BYTES = 2048


@dataclass(slots=True, eq=False)
class Route:
    """Result of parsing a topic.

    Parameters
    ----------
    device
        Id of the device.
    key
        The id as Kafka key; `None` if the topic names no device.
    topic_header
        The topic as a header of a record.
    is_status
        Whether the topic carries presence instead of readings.
    rejection
        Reason if readings from this topic can't be stored.
    accepted
        Whether the bridge has accepted the device.
    """

    device: str
    key: bytes | None
    topic_header: tuple[str, bytes]
    is_status: bool = False
    rejection: Rejection | None = None
    accepted: bool = False


class Router(dict[bytes, Route]):
    """Cache of routes by topic; a missing topic is parsed.

    Only `keep` adds a route, so the cache contains only topics of accepted devices.

    Parameters
    ----------
    topics
        The profile's topics.
    codec
        Checks which ids can be stored.
    """

    def __init__(self, topics: MqttTopics, codec: ReadingCodec) -> None:
        self._readings = topics.topic.split("/")
        self._status = topics.status_topic.split("/")
        self._codec = codec

    def __missing__(self, topic: bytes) -> Route:
        """Parse the topic of a packet."""
        if topic == MALFORMED_TOPIC:
            rejection = Rejection(Reason.MALFORMED_PACKET, "the broker sent it more than once")
            return Route("", None, ("topic", b""), rejection=rejection)
        text = topic.decode("utf-8", "backslashreplace")
        header = ("topic", text.encode())
        if not _is_utf8(topic):
            rejection = Rejection(Reason.ID_UNWRITABLE, "the topic is not UTF-8")
            return Route("", None, header, rejection=rejection)
        levels = text.split("/")
        is_status = _matches(levels, self._status)
        template = self._status if is_status else self._readings
        if not _matches(levels, template):
            rejection = Rejection(Reason.ID_MISMATCH, "the topic is not one of the profile's")
            return Route("", None, header, rejection=rejection)
        device = levels[template.index(PLACEHOLDER)]
        try:
            self._codec.check_id(device)
        except RejectedReadingError as exc:
            return Route("", None, header, is_status, exc.rejection)
        return Route(device, device.encode(), header, is_status)

    def keep(self, topic: bytes, route: Route) -> None:
        """Cache a route for later messages."""
        if len(topic) > _MAX_KEPT_TOPIC_BYTES:
            return
        if len(self) >= _MAX_ROUTES:
            self.clear()
        self[topic] = route


def _is_utf8(topic: bytes) -> bool:
    try:
        topic.decode()
    except UnicodeDecodeError:
        return False
    return True


def _matches(levels: list[str], template: list[str]) -> bool:
    return len(levels) == len(template) and all(
        wanted in (PLACEHOLDER, "+", level) for level, wanted in zip(levels, template, strict=True)
    )


def filters_within(topics: MqttTopics, filters: tuple[str, ...]) -> tuple[str, ...]:
    """Check that a bridge's topic filters are within the profile's topic and do not overlap.

    A broker sends a message once for each filter that matches it, so overlapping filters
    would store readings twice.

    Returns
    -------
    tuple of str
        The filters, or the profile's one filter if none are given.

    Raises
    ------
    ConfigurationError
        If a filter is outside the profile's topic, or if two filters overlap.
    """
    template = topics.topic.split("/")
    for item in filters:
        levels = split_share(item)[1].split("/")
        if len(levels) != len(template) or not all(
            _is_within(level, wanted) for level, wanted in zip(levels, template, strict=True)
        ):
            msg = f"HEADRACE_MQTT_TOPICS: {item!r} is not within the profile's topic {topics.topic}"
            raise ConfigurationError(msg)
    check_disjoint(filters)
    return filters or (topics.readings_filter,)


def status_filters(topics: MqttTopics, readings: Iterable[str]) -> tuple[str, ...]:
    """Return the presence filters for the devices that filters of readings match.

    Returns
    -------
    tuple of str
        Filters that do not overlap. They can match devices of other bridges.
    """
    kept: list[str] = []
    for item in (_status_filter_of(topics, item) for item in readings):
        if not any(_covers(other, item) for other in kept):
            kept = [*(other for other in kept if not _covers(item, other)), item]
    if any(overlap(first, second) for first, second in combinations(kept, 2)):
        return (topics.status_filter,)
    return tuple(kept)


def _covers(wide: str, narrow: str) -> bool:
    """Return whether a filter matches every topic that another one matches."""
    pairs = zip(split_share(wide)[1].split("/"), split_share(narrow)[1].split("/"), strict=True)
    return all(level in ("+", other) for level, other in pairs)


def _status_filter_of(topics: MqttTopics, readings_filter: str) -> str:
    """Return the presence filter for the devices that a filter of readings matches."""
    share, bare = split_share(readings_filter)
    levels = bare.split("/")
    template = topics.topic.split("/")
    device = levels[template.index(PLACEHOLDER)]
    # The levels that replace the template's other wildcards, in order.
    others = [level for level, wanted in zip(levels, template, strict=True) if wanted == "+"]
    status = []
    for wanted in topics.status_topic.split("/"):
        if wanted == PLACEHOLDER:
            status.append(device)
        elif wanted == "+" and others:
            status.append(others.pop(0))
        else:
            status.append(wanted)
    return share + "/".join(status)


def _is_within(level: str, wanted: str) -> bool:
    free = wanted in ("+", PLACEHOLDER)
    return "#" not in level and (free or level == wanted) and ("+" not in level or level == "+")
