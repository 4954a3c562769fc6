"""The records on the topic of alarm changes: flat JSON, one record a change and revision."""

from __future__ import annotations

import msgspec

from headrace.models.alarm import AlarmChange, AlarmState, PublishedChange
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.window import rfc3339
from headrace.profile import Profile
from headrace.storage.own_json import device_of, integer_of, object_of, text_of, time_of

__all__ = ["change_value", "read_change"]


def change_value(profile: Profile, change: AlarmChange, revision: int) -> bytes:
    """Return the value of a record on the topic of alarms: flat JSON."""
    return msgspec.json.encode(
        {
            profile.id_field: change.device,
            "rule": change.rule,
            "alarm": change.level,
            "state": change.state.value,
            "since": rfc3339(change.since),
            "window_start": rfc3339(change.window_start),
            "revision": revision,
        }
    )


def read_change(profile: Profile, key: bytes, value: bytes) -> PublishedChange:
    """Parse a record on the topic of alarms.

    Raises
    ------
    ForeignRecordError
        If Headrace did not write it.
    """
    content = object_of(value)
    state = text_of(content, "state")
    if state not in set(AlarmState):
        raise ForeignRecordError(ForeignReason.WRONG_VALUE, f"state is {state[:40]!r}")
    change = AlarmChange(
        device=device_of(content, profile.id_field, key),
        rule=text_of(content, "rule"),
        level=text_of(content, "alarm"),
        state=AlarmState(state),
        since=time_of(content, "since"),
        window_start=time_of(content, "window_start"),
    )
    return PublishedChange(change, integer_of(content, "revision"))
