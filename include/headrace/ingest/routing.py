"""From an MQTT topic to the device that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.errors import ConfigurationError
from headrace.models.deadletter import Reason, RejectedReadingError
from headrace.models.reading import ReadingCodec
from headrace.profile import MqttTopics

__all__ = ["Route", "Router", "filters_within", "status_filter_of"]

_PLACEHOLDER = "{id}"
#: Bounds the memory when topics never come back; a fleet fits many times over.
_MAX_ROUTES = 100_000


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message goes, worked out once a topic.

    Parameters
    ----------
    topic
        The MQTT topic as text.
    device
        The device's id.
    key
        The same as Kafka's key; `None` if the topic names no device.
    is_status
        Whether the topic carries presence instead of readings.
    rejection
        Why nothing from this topic can be stored, if so.
    """

    topic: str
    device: str
    key: bytes | None
    is_status: bool = False
    rejection: RejectedReadingError | None = None
    topic_header: tuple[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        header = ("topic", self.topic.encode("utf-8", "backslashreplace"))
        object.__setattr__(self, "topic_header", header)


class Router(dict[bytes, Route]):
    """Finds the device in a topic: a dict that works a topic's route out when it is new.

    Parameters
    ----------
    topics
        The profile's topics.
    codec
        Knows which ids can be stored.
    """

    def __init__(self, topics: MqttTopics, codec: ReadingCodec) -> None:
        self._readings = topics.topic.split("/")
        self._status = topics.status_topic.split("/")
        self._codec = codec

    def __missing__(self, topic: bytes) -> Route:
        """Route of a topic as it stands in the packet."""
        if len(self) >= _MAX_ROUTES:
            self.clear()
        route = self[topic] = self._work_out(topic)
        return route

    def _work_out(self, topic: bytes) -> Route:
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            text = topic.decode("utf-8", "backslashreplace")
            rejection = RejectedReadingError(Reason.ID_UNWRITABLE, "the topic is not UTF-8")
            return Route(text, "", None, rejection=rejection)
        levels = text.split("/")
        is_status = _matches(levels, self._status)
        template = self._status if is_status else self._readings
        if not _matches(levels, template):
            rejection = RejectedReadingError(
                Reason.ID_MISMATCH, "the topic is not one of the profile's"
            )
            return Route(text, "", None, rejection=rejection)
        device = levels[template.index(_PLACEHOLDER)]
        try:
            self._codec.check_id(device)
        except RejectedReadingError as exc:
            return Route(text, device, None, is_status, exc)
        return Route(text, device, device.encode(), is_status)


def _matches(levels: list[str], template: list[str]) -> bool:
    return len(levels) == len(template) and all(
        wanted in (_PLACEHOLDER, "+", level) for level, wanted in zip(levels, template, strict=True)
    )


def filters_within(topics: MqttTopics, filters: tuple[str, ...]) -> tuple[str, ...]:
    """Check that a bridge's own topic filters lie within the profile's topic.

    Returns
    -------
    tuple of str
        The filters, or the profile's one filter if none are given.

    Raises
    ------
    ConfigurationError
        If one does not.
    """
    template = topics.topic.split("/")
    for item in filters:
        levels = _split_share(item)[1].split("/")
        if len(levels) != len(template) or not all(
            _is_within(level, wanted) for level, wanted in zip(levels, template, strict=True)
        ):
            msg = (
                f"HEADRACE_MQTT_TOPICS: {item!r} does not lie within the profile's topic "
                f"{topics.topic}"
            )
            raise ConfigurationError(msg)
    return filters or (topics.readings_filter,)


def status_filter_of(topics: MqttTopics, readings_filter: str) -> str:
    """The filter of presence that belongs to a filter of readings: of the same devices."""
    share, bare = _split_share(readings_filter)
    levels = bare.split("/")
    template = topics.topic.split("/")
    device = levels[template.index(_PLACEHOLDER)]
    # What stands in the place of each further wildcard, in order.
    others = [level for level, wanted in zip(levels, template, strict=True) if wanted == "+"]
    status = []
    for wanted in topics.status_topic.split("/"):
        if wanted == _PLACEHOLDER:
            status.append(device)
        elif wanted == "+" and others:
            status.append(others.pop(0))
        else:
            status.append(wanted)
    return share + "/".join(status)


def _split_share(item: str) -> tuple[str, str]:
    """A shared subscription is ``$share/<group>/<filter>``; returns that prefix, and the filter."""
    parts = item.split("/", 2)
    if parts[0] == "$share" and len(parts) > 2:  # noqa: PLR2004
        return f"{parts[0]}/{parts[1]}/", parts[2]
    return "", item


def _is_within(level: str, wanted: str) -> bool:
    free = wanted in ("+", _PLACEHOLDER)
    return "#" not in level and (free or level == wanted) and ("+" not in level or level == "+")
