"""Rules for device ids, which are part of every key and every point."""

from __future__ import annotations

import re

from headrace.models.deadletter import Reason, RejectedReadingError

__all__ = ["MAX_ID_CHARACTERS", "check_id", "is_unwritable"]

#: Maximum length of an id.
MAX_ID_CHARACTERS = 256
#: A control character, or a backslash at the end or before a comma, equals sign or space.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]|\\(?=[,= ]|$)")


def is_unwritable(device: str) -> bool:
    """Return whether a text has characters that InfluxDB can't store in an id."""
    return _UNWRITABLE.search(device) is not None


def check_id(device: str) -> None:
    """Check that an id can be a tag in InfluxDB and a key in Kafka.

    Raises
    ------
    RejectedReadingError
        If it cannot.
    """
    if not device:
        raise RejectedReadingError(Reason.ID_UNWRITABLE, "the id is empty")
    if len(device) > MAX_ID_CHARACTERS:
        detail = f"the id has {len(device)} characters, {MAX_ID_CHARACTERS} are allowed"
        raise RejectedReadingError(Reason.ID_UNWRITABLE, detail)
    if is_unwritable(device):
        detail = "the id has a control character, or a backslash where a tag cannot have one"
        raise RejectedReadingError(Reason.ID_UNWRITABLE, detail)
