"""paho's client with or without a `PublishStream`, and subscriptions."""

from __future__ import annotations

import secrets
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from headrace.errors import HeadraceError, ServerUnavailableError
from headrace.storage.mqtt_address import MqttAddress
from headrace.storage.mqtt_packets import MalformedPackets
from headrace.storage.mqtt_stream import PublishStream
from headrace.storage.mqtt_tls import is_tls_alert, tls_failed

__all__ = ["MqttClient", "StreamClient", "Subscription", "unreachable"]

#: A small receive buffer keeps the backlog in the broker. Unread messages are redelivered after
#: a lost connection, and their number must stay below the number of packet ids (65,535).
_RECEIVE_BUFFER_BYTES = 256 * 1024
_PACKET_IDS = 65_535
#: The connection ends if the other side does not answer TCP for this long.
_TCP_USER_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Subscription:
    """A topic filter, and whether a new subscription receives retained messages."""

    topic_filter: str
    retained: bool = False

    def options(self) -> SubscribeOptions:
        """Return options for QoS 1, with retained messages only for a new subscription."""
        once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        never = SubscribeOptions.RETAIN_DO_NOT_SEND
        return SubscribeOptions(qos=1, retainHandling=once if self.retained else never)


class MqttClient(Client):
    """paho with access to TLS failures. Depends on the pinned version of paho.

    Attributes
    ----------
    tls_alert
        Reason of the broker for ending the TLS connection after the handshake, if known.
    """

    tls_alert: ssl.SSLError | None = None

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        context = cast("ssl.SSLContext", self._ssl_context)
        wrapped = context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            wrapped.settimeout(self._connect_timeout)
            wrapped.do_handshake()
        except BaseException:
            # paho's own method leaves the socket open.
            wrapped.close()
            raise
        return wrapped

    def _sock_recv(self, bufsize: int) -> bytes:
        try:
            return super()._sock_recv(bufsize)
        except ssl.SSLError as exc:
            if is_tls_alert(exc):
                self.tls_alert = exc
            raise

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError:
            if isinstance(self._sock, ssl.SSLSocket):
                # The broker may have sent the reason just before it closed.
                with suppress(OSError):
                    self._sock_recv(1)
            raise


class StreamClient(MqttClient):
    """paho that reads from a `PublishStream`.

    Parameters
    ----------
    client_id
        Name of the session.
    keep_bytes
        Longer payloads are truncated.

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

    def vary_packet_ids(self) -> None:
        """Start the packet ids of this client at random.

        The ids of both sides are independent in MQTT. But mochi-mqtt refuses a SUBSCRIBE
        if its id is that of a message which the client has not acknowledged. A client that begins
        with 1 each time could never connect again.
        """
        self._last_mid = secrets.randbelow(_PACKET_IDS)

    def use_certificates_of(self, address: MqttAddress) -> None:
        """Read the certificates again, in case they were renewed.

        Raises
        ------
        ConfigurationError
            If a file can't be used.
        """
        if address.tls:
            self._ssl_context = address.tls_context()

    def _create_socket(self) -> Any:
        sock = cast("socket.socket", super()._create_socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        self.stream = PublishStream(sock, self._keep_bytes, self._malformed)
        return self.stream


def unreachable(address: MqttAddress, exc: Exception) -> HeadraceError:
    """Return the error for a socket that can't be opened or broke."""
    text = f"the MQTT broker at {address} can't be reached: {exc}"
    return tls_failed(address, exc) or ServerUnavailableError(text)
