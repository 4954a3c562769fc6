"""Limits that an MQTT broker sets, and their consequences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from paho.mqtt.properties import Properties

__all__ = ["connack_shortfalls", "suback_shortfalls"]


def connack_shortfalls(
    properties: Properties | None,
    filters: Sequence[str],
    *,
    client_id: str,
    session_expiry: timedelta,
    keepalive: timedelta,
) -> list[str]:
    """List the limits in the properties of a CONNACK.

    Parameters
    ----------
    properties
        The properties.
    filters
        Topic filters that will be subscribed.
    client_id, session_expiry, keepalive
        The client's requests.

    Returns
    -------
    list of str
        One sentence for each limit.
    """

    def granted(name: str, otherwise: int) -> int:
        return int(getattr(properties, name, otherwise))

    found = []
    asked = int(session_expiry.total_seconds())
    expiry = granted("SessionExpiryInterval", asked)
    if expiry < asked:
        found.append(
            f"the broker keeps the session for {expiry} s without a connection instead of {asked} "
            "s: messages are lost if the bridge is away for longer"
        )
    if granted("MaximumQoS", 2) == 0:
        found.append(
            "the broker supports QoS 0 only: messages are lost whenever the connection breaks or "
            "the bridge restarts"
        )
    if not granted("RetainAvailable", 1):
        found.append(
            "the broker keeps no retained messages: a device has no presence until it publishes "
            "it again"
        )
    asked = int(keepalive.total_seconds())
    alive = granted("ServerKeepAlive", asked)
    if alive > asked or alive == 0:
        found.append(
            f"the broker sets the keep-alive interval to {alive} s instead of {asked} s"
            f"{' (off)' if alive == 0 else ''}: a dead connection is noticed later"
        )
    name = getattr(properties, "AssignedClientIdentifier", client_id)
    if name != client_id:
        found.append(
            f"the broker names the session {str(name)[:200]!r} instead of {client_id!r}: it may "
            "not be resumed after a restart"
        )
    if not granted("WildcardSubscriptionAvailable", 1) and any(
        "+" in item or "#" in item for item in filters
    ):
        found.append("the broker does not support wildcards: it may refuse the subscriptions")
    if not granted("SharedSubscriptionAvailable", 1) and any(
        item.startswith("$share/") for item in filters
    ):
        found.append(
            "the broker does not support shared subscriptions: it may refuse the subscriptions"
        )
    return found


def suback_shortfalls(filters: Sequence[str], codes: Sequence[int]) -> list[str]:
    """List the filters for which a SUBACK grants less than QoS 1, one sentence each."""
    return [
        f"the broker grants QoS 0 for {item}: its messages are lost whenever the connection "
        "breaks or the bridge restarts"
        for item, code in zip(filters, codes, strict=True)
        if code == 0
    ]
