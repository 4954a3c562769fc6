"""The records on the status topic: flat JSON, the newest of each device counts."""

from __future__ import annotations

import json
from typing import Any

from headrace.errors import ConfigurationError
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.presence import Presence, PresenceState
from headrace.models.window import parse_time, rfc3339

__all__ = ["presence_value", "read_presence"]


def presence_value(presence: Presence, id_field: str) -> bytes:
    """Return the value of the record on the status topic, whose key is the device's id."""
    return json.dumps(
        {
            id_field: presence.device,
            "status": presence.state.value,
            "since": rfc3339(presence.since),
        }
    ).encode()


def read_presence(value: bytes, id_field: str, key: bytes | None = None) -> Presence:
    """Read the value of a record on the status topic.

    Parameters
    ----------
    value
        The record's value.
    id_field
        The profile's id field.
    key
        The record's key, which must be the device's id; not checked if not given.

    Raises
    ------
    ForeignRecordError
        If Headrace did not write the record.
    """
    content = _object(value)
    missing = [name for name in (id_field, "status", "since") if name not in content]
    if missing:
        raise ForeignRecordError(ForeignReason.MISSING_FIELD, f"{missing[0]} is missing")
    device, status, since = content[id_field], content["status"], content["since"]
    if not isinstance(device, str) or not isinstance(since, str):
        detail = f"{id_field} and since must be text"
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, detail)
    if status not in list(PresenceState):
        detail = f"status is {str(status)[:100]!r}, neither online nor offline"
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, detail)
    try:
        begun = parse_time(since)
    except (ConfigurationError, OverflowError, ValueError):
        detail = f"since is {since[:100]!r}, which is not a time"
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, detail) from None
    if key is not None and key != device.encode("utf-8", "surrogatepass"):
        detail = f"{id_field} is {device[:100]!r}, the key is {key[:100]!r}"
        raise ForeignRecordError(ForeignReason.WRONG_KEY, detail)
    return Presence(device, PresenceState(status), begun)


def _object(value: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8."""
    if not value:
        raise ForeignRecordError(ForeignReason.EMPTY)
    try:
        content = json.loads(value.decode())
    except (ValueError, RecursionError) as exc:
        raise ForeignRecordError(ForeignReason.NOT_JSON, str(exc)[:200]) from None
    if not isinstance(content, dict):
        raise ForeignRecordError(ForeignReason.NOT_AN_OBJECT)
    return content
