"""Presence: which devices are connected, as their Last Will and birth messages say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from headrace.models.window import parse_time, rfc3339

__all__ = ["Presence", "PresenceState"]


class PresenceState(StrEnum):
    """What a device, or the broker in its name, says of its connection."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True)
class Presence:
    """The connection of one device.

    Parameters
    ----------
    device
        Its id.
    state
        Online or offline.
    since
        When the bridge first heard of this state: MQTT does not say when a device left.
    """

    device: str
    state: PresenceState
    since: datetime

    def to_json(self, id_field: str) -> bytes:
        """Value of the record on the status topic, whose key is the device's id."""
        return json.dumps(
            {id_field: self.device, "status": self.state.value, "since": rfc3339(self.since)}
        ).encode()

    @classmethod
    def from_json(cls, value: bytes, id_field: str) -> Presence:
        """Read the value of a record on the status topic."""
        content = json.loads(value)
        return cls(
            content[id_field], PresenceState(content["status"]), parse_time(content["since"])
        )
