"""Reads the MQTT broker's counters from its ``$SYS`` topics."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from datetime import timedelta

from headrace.errors import HeadraceError
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription

__all__ = ["BROKER_COUNTERS", "read_broker_statistics"]

#: Retained topics of mosquitto and compatible brokers, and the counter of each.
BROKER_COUNTERS = {
    "$SYS/broker/publish/messages/dropped": "dropped",
    "$SYS/broker/messages/dropped": "dropped",
    "$SYS/broker/store/messages/count": "stored",
    "$SYS/broker/messages/stored": "stored",
}
#: Brokers send retained messages together, so none follow after this pause.
_PAUSE_SECONDS = 0.3
_LONGEST_NUMBER = 20


def read_broker_statistics(address: MqttAddress, timeout: timedelta) -> dict[str, int] | None:
    """Read the number of messages that the broker has dropped, and of those that it stores.

    The connection is separate and short, has no session, a random client id, no login and no
    client certificate. With the bridge's own it could take over the bridge's session and remove
    it: brokers may name sessions after logins, and logins after certificates. So a broker that
    requires either can't be asked.

    Parameters
    ----------
    address
        The broker. Its login and client certificate are not used.
    timeout
        Time limit for everything.

    Returns
    -------
    dict or None
        Values by name, ``dropped`` and ``stored``, as far as the broker publishes them.
        `None` if it publishes neither, can't be reached in time, or requires a login or a client
        certificate.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    session = MqttSession(
        replace(address, username=None, password=None, cert_file=None, key_file=None),
        f"headrace-statistics-{secrets.token_hex(6)}",
        tuple(Subscription(topic, retained=True) for topic in BROKER_COUNTERS),
        keepalive=timedelta(seconds=60),
        session_expiry=timedelta(0),
        receive_maximum=len(BROKER_COUNTERS),
        keep_bytes=_LONGEST_NUMBER + 1,
        connect_timeout=timeout,
    )
    counters: dict[str, int] = {}
    try:
        session.connect()
        quiet_at = time.monotonic() + _PAUSE_SECONDS
        while (remaining := min(deadline, quiet_at) - time.monotonic()) > 0:
            published = session.receive(remaining)
            if published:
                quiet_at = time.monotonic() + _PAUSE_SECONDS
            for _, packet_id, topic, payload in published:
                name = BROKER_COUNTERS.get(topic.decode("utf-8", "replace"))
                if name is not None and payload.isdigit() and len(payload) <= _LONGEST_NUMBER:
                    counters[name] = int(payload)
                if packet_id:
                    session.acknowledge([packet_id])
    except HeadraceError:
        # The caller checks separately whether the broker can be reached.
        return _completed(counters)
    finally:
        session.leave(0.0)
    return _completed(counters)


def _completed(counters: dict[str, int]) -> dict[str, int] | None:
    # mosquitto publishes a counter only after its first change.
    return {"dropped": 0, **counters} if counters else None
