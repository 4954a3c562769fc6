"""Checks whether a broker is available, and whether it has a session."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from paho.mqtt.client import Client, ConnectFlags, MQTTErrorCode, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from headrace.errors import ServerUnavailableError
from headrace.storage.mqtt import MqttAddress
from headrace.storage.mqtt_client import MqttClient, unreachable

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["accepts_connections", "session_exists"]


def accepts_connections(address: MqttAddress, timeout: timedelta = timedelta(seconds=1)) -> bool:
    """Return whether the broker's port accepts connections."""
    try:
        socket.create_connection(
            (address.host, address.port), timeout=timeout.total_seconds()
        ).close()
    except OSError:
        return False
    return True


def session_exists(
    address: MqttAddress,
    client_id: str,
    session_expiry: timedelta,
    timeout: timedelta = timedelta(seconds=5),
) -> bool:
    """Return whether a broker has a session.

    An existing session is not removed, because it can belong to a bridge that has just started.
    Messages that the broker sends are not acknowledged.

    Parameters
    ----------
    address
        The broker.
    client_id
        Name of the session.
    session_expiry
        How long the broker keeps a session that exists, as the bridge requests it.
    timeout
        Time limit.

    Raises
    ------
    AccessDeniedError
        If a certificate is not accepted.
    ConfigurationError
        If a certificate can't be used.
    TransientError
        If the broker does not answer, or refuses the connection.
    """
    answers: list[tuple[ConnectFlags, ReasonCode]] = []

    def on_connect(
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        answers.append((flags, reason))

    client = MqttClient(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5, manual_ack=True
    )
    seconds = timeout.total_seconds()
    client.connect_timeout = seconds
    client.on_connect = on_connect
    address.apply_to(client)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = int(session_expiry.total_seconds())
    where = f"the MQTT broker at {address.host}:{address.port}"
    deadline = time.monotonic() + seconds
    try:
        client.connect(address.host, address.port, clean_start=False, properties=properties)
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        while not answers and code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            if time.monotonic() > deadline:
                break
            code = client.loop(0.1)
        client.disconnect(properties=_farewell(answers))
    except OSError as exc:
        raise unreachable(address, exc) from exc
    if client.tls_alert is not None:
        raise unreachable(address, client.tls_alert)
    if not answers:
        msg = f"{where} does not answer"
        raise ServerUnavailableError(msg)
    flags, reason = answers[0]
    if reason.is_failure:
        msg = f"{where} refuses the connection: {reason}"
        raise ServerUnavailableError(msg)
    return flags.session_present


def _farewell(answers: list[tuple[ConnectFlags, ReasonCode]]) -> Properties | None:
    """Return the DISCONNECT that removes a session which only this probe created."""
    if not answers or answers[0][0].session_present:
        return None
    properties = Properties(PacketTypes.DISCONNECT)
    properties.SessionExpiryInterval = 0
    return properties
