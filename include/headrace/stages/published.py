"""What consumers have: the output topics, read from the time of a window on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from headrace.storage.kafka import Kafka, Record
from headrace.storage.kafka_log import read_topic

__all__ = ["records_since"]

#: Records are published after their window has ended; clocks differ by less than this.
_CLOCK_MARGIN = timedelta(minutes=5)


def records_since(
    moment: datetime,
    topic: str,
    kafka: Kafka,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[Record]:
    """Read committed records that were published at some moment or later.

    Parameters
    ----------
    moment
        The moment.
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
    return read_topic(kafka, topic, since=moment - _CLOCK_MARGIN, wanted=wanted)
