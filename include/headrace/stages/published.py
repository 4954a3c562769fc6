"""What consumers have: the output topics, read from the end of a window on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headrace.models.window import WindowRange
from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic

__all__ = ["records_since"]


def records_since(
    windows: WindowRange,
    topic: str,
    kafka: Kafka,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[Record]:
    """Read committed records from the end of a range's first window on.

    None about a window is stamped earlier than the window's end, see `Publisher.publish`.

    Parameters
    ----------
    windows
        The range.
    topic
        The topic.
    kafka
        The cluster.
    wanted
        Says by its value whether a record is wanted; every one is if not given.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    return read_topic(kafka, topic, since=windows.start + windows.length, wanted=wanted)
