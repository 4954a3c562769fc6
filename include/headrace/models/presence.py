"""Presence: which devices are connected, according to their Last Will and birth messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Presence", "PresenceState"]


class PresenceState(StrEnum):
    """State of a device's connection, from the device or its Last Will."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True)
class Presence:
    """The connection of one device.

    Parameters
    ----------
    device
        Id of the device.
    state
        State of the connection.
    since
        Time of the first message with this state at the bridge. MQTT does not provide the time of
        a disconnection.
    """

    device: str
    state: PresenceState
    since: datetime
