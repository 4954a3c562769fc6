"""paho's client on a `PublishStream`, and what a session subscribes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any, cast

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from headrace.errors import AccessDeniedError, HeadraceError, ServerUnavailableError
from headrace.storage.mqtt_address import MqttAddress
from headrace.storage.mqtt_packets import MalformedPackets
from headrace.storage.mqtt_stream import PublishStream

__all__ = ["StreamClient", "Subscription", "unreachable"]

#: A small receive buffer keeps the backlog in the broker: unread messages are sent again
#: after a lost connection, and packet ids (65,535) must not be reused among them.
_RECEIVE_BUFFER_BYTES = 256 * 1024
#: The connection ends if the other side does not answer TCP for so long.
_TCP_USER_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Subscription:
    """A topic filter, and whether retained messages are sent when it is new."""

    topic_filter: str
    retained: bool = False

    def options(self) -> SubscribeOptions:
        """QoS 1, and retained messages only for a subscription that did not exist."""
        once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        never = SubscribeOptions.RETAIN_DO_NOT_SEND
        return SubscribeOptions(qos=1, retainHandling=once if self.retained else never)


class StreamClient(Client):
    """paho, reading from a `PublishStream`. Depends on the pinned version of paho.

    Parameters
    ----------
    client_id
        Name of the session.
    keep_bytes
        Longer payloads are cut.

    Attributes
    ----------
    stream
        The stream of the newest connection.
    """

    stream: PublishStream

    def __init__(self, client_id: str, keep_bytes: int) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
        self._keep_bytes = keep_bytes
        self._malformed = MalformedPackets()

    def _create_socket(self) -> Any:
        sock = cast("socket.socket", super()._create_socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        self.stream = PublishStream(sock, self._keep_bytes, self._malformed)
        return self.stream


def unreachable(address: MqttAddress, exc: Exception) -> HeadraceError:
    """Make the error for a socket that can't be opened, or broke."""
    text = f"the MQTT broker at {address} can't be reached: {exc}"
    # A retry does not help against a wrong certificate.
    if isinstance(exc, ssl.SSLCertVerificationError):
        return AccessDeniedError(
            f"{text}. Check that HEADRACE_MQTT_CA_FILE is the CA of its certificate and that the "
            "certificate names HEADRACE_MQTT_HOST"
        )
    if isinstance(exc, ssl.SSLError):
        text += ". Check HEADRACE_MQTT_TLS and HEADRACE_MQTT_PORT"
    return ServerUnavailableError(text)
