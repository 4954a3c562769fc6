"""MQTT: one persistent session, acknowledged by whoever runs the loop."""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTErrorCode, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    HeadraceError,
    ServerUnavailableError,
)
from headrace.settings import Settings
from headrace.storage.mqtt_stream import Publish, PublishStream

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["MqttAddress", "MqttSession", "Subscription"]

_DENIED = {"Bad user name or password", "Not authorized", "Banned"}
_CONNECT_SECONDS = 5.0
#: An unread socket must not swallow a backlog: what lies in it is sent again after a
#: lost connection, and packet ids (65,535) must not come round among what is unread.
_RECEIVE_BUFFER_BYTES = 256 * 1024
#: A silent peer is given up on after so many seconds without an answer to TCP.
_TCP_USER_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class MqttAddress:
    """Where the broker is, and who connects.

    Parameters
    ----------
    host, port
        Address of the broker.
    username, password
        Login, if the broker wants one. The password never appears in the representation.
    tls
        Speak TLS.
    ca_file
        CA certificates that sign the broker's; the system's if `None`.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> MqttAddress:
        """Reach the broker that the settings name."""
        secret = settings.mqtt_password
        return cls(
            host=settings.mqtt_host,
            port=settings.mqtt_port,
            username=settings.mqtt_username,
            password=secret.get_secret_value() if secret else None,
            tls=settings.mqtt_tls,
            ca_file=settings.mqtt_ca_file,
        )

    def __repr__(self) -> str:
        return f"MqttAddress(host={self.host!r}, port={self.port}, tls={self.tls})"

    def apply_to(self, client: Client) -> None:
        """Give a paho client the login and the certificates.

        Raises
        ------
        ConfigurationError
            If the file of the CA can't be read.
        """
        if self.username is not None:
            client.username_pw_set(self.username, self.password)
        if self.tls:
            try:
                client.tls_set(ca_certs=str(self.ca_file) if self.ca_file else None)
            except OSError as exc:
                msg = f"HEADRACE_MQTT_CA_FILE: {self.ca_file} holds no CA certificate: {exc}"
                raise ConfigurationError(msg) from exc


@dataclass(frozen=True)
class Subscription:
    """A topic filter, and whether retained messages come when it is new."""

    topic_filter: str
    retained: bool = False

    def options(self) -> SubscribeOptions:
        """QoS 1, and retained messages only for a subscription that did not exist."""
        once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        never = SubscribeOptions.RETAIN_DO_NOT_SEND
        return SubscribeOptions(qos=1, retainHandling=once if self.retained else never)


class _StreamClient(Client):
    """paho, reading from a `PublishStream`. Tied to the pinned version of paho."""

    keep_bytes: int
    stream: PublishStream

    def _create_socket(self) -> Any:
        sock = cast("socket.socket", super()._create_socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        self.stream = PublishStream(sock, self.keep_bytes)
        return self.stream


class MqttSession:
    """A persistent MQTT 5 session in which nothing is acknowledged by itself.

    Not thread-safe: one thread connects, receives and acknowledges.

    Parameters
    ----------
    address
        The broker.
    client_id
        Name of the session. The same name takes it up again.
    subscriptions
        Made anew at every connection, for sessions that the broker has lost.
    keepalive
        Keep-alive interval.
    session_expiry
        How long the broker keeps the session without a connection.
    receive_maximum
        Unacknowledged messages that the broker may send.
    keep_bytes
        Longer payloads are cut; see `PublishStream`.
    """

    def __init__(
        self,
        address: MqttAddress,
        client_id: str,
        subscriptions: tuple[Subscription, ...],
        *,
        keepalive: timedelta,
        session_expiry: timedelta,
        receive_maximum: int,
        keep_bytes: int,
    ) -> None:
        self._address = address
        self._subscriptions = subscriptions
        self._keepalive = keepalive
        self._properties = Properties(PacketTypes.CONNECT)
        self._properties.SessionExpiryInterval = int(session_expiry.total_seconds())
        self._properties.ReceiveMaximum = receive_maximum
        self._client = _StreamClient(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5
        )
        self._client.keep_bytes = keep_bytes
        self._client.connect_timeout = _CONNECT_SECONDS
        address.apply_to(self._client)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._failure: HeadraceError | None = None
        self._resumed: bool | None = None
        self._subscribed = False

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection and the subscriptions."""
        return self._subscribed

    def connect(self) -> bool:
        """Connect, take up the session and subscribe.

        Returns
        -------
        bool
            Whether the broker still had the session.

        Raises
        ------
        AccessDeniedError
            If the broker refuses the login, the certificate or a subscription.
        TransientError
            If it can't be reached.
        """
        self._failure, self._resumed, self._subscribed = None, None, False
        try:
            self._client.connect(
                self._address.host,
                self._address.port,
                keepalive=int(self._keepalive.total_seconds()),
                clean_start=False,
                properties=self._properties,
            )
        except OSError as exc:
            raise _unreachable(self._address, exc) from exc
        deadline = time.monotonic() + _CONNECT_SECONDS
        # What the broker publishes meanwhile stays in the stream until it is taken.
        while not self._subscribed:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self._client.stream.close()
                msg = f"the MQTT broker at {self._where} accepts connections but does not answer"
                raise ServerUnavailableError(msg)
            try:
                self._wait(remaining, reading=True)
            except ServerUnavailableError as exc:
                if self._resumed is not None or self._failure is not None:
                    raise
                msg = (
                    f"{exc}, before it had answered. Are HEADRACE_MQTT_TLS and HEADRACE_MQTT_PORT "
                    "right?"
                )
                raise ServerUnavailableError(msg) from exc
        return bool(self._resumed)

    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        """Wait for the network, and return what was published.

        Parameters
        ----------
        timeout
            Seconds to wait at most.
        reading
            Whether to take anything in. Without it the broker's messages stay in the
            network, and only acknowledgements and pings go out.

        Raises
        ------
        TransientError
            If the connection is lost.
        """
        self._wait(timeout, reading=reading)
        return self._client.stream.take()

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Acknowledge messages, in the order given.

        Raises
        ------
        ServerUnavailableError
            If the connection is lost; the broker will send those messages again.
        """
        try:
            self._client.stream.acknowledge(packet_ids)
        except OSError as exc:
            raise _unreachable(self._address, exc) from exc

    def unsubscribe(self) -> None:
        """Ask the broker to queue nothing more for this session."""
        self._client.unsubscribe([item.topic_filter for item in self._subscriptions])

    def leave(self, timeout: float, *, forever: bool = False) -> None:
        """Send what waits, and disconnect in an orderly way.

        Parameters
        ----------
        timeout
            Seconds that may take.
        forever
            Whether the broker should forget the session; otherwise it stays.
        """
        self._subscribed = False
        if self._client.socket() is None:
            return
        deadline = time.monotonic() + timeout
        stream = self._client.stream
        # If the broker is gone already, it keeps the session all the same.
        with suppress(OSError, ValueError):
            while stream.wants_write and (remaining := deadline - time.monotonic()) > 0:
                select.select([], [stream], [], remaining)
                stream.flush()
            properties = None
            if forever:
                properties = Properties(PacketTypes.DISCONNECT)
                properties.SessionExpiryInterval = 0
            self._client.disconnect(properties=properties)
        stream.close()

    @property
    def _where(self) -> str:
        return f"{self._address.host}:{self._address.port}"

    def _wait(self, timeout: float, *, reading: bool) -> None:
        stream = self._client.stream
        try:
            readable, writable, _ = select.select(
                [stream] if reading else [], [stream] if stream.wants_write else [], [], timeout
            )
            if writable:
                stream.flush()
        except (OSError, ValueError) as exc:
            raise _unreachable(self._address, exc) from exc
        if readable:
            stream.fill()
        lost = MQTTErrorCode.MQTT_ERR_SUCCESS
        while stream.has_control and lost == MQTTErrorCode.MQTT_ERR_SUCCESS:
            lost = self._client.loop_read()
        # What a callback sends, paho only queues.
        if lost == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.want_write():
            lost = self._client.loop_write()
        if lost == MQTTErrorCode.MQTT_ERR_SUCCESS:
            lost = self._client.loop_misc()
        if self._failure is not None:
            self._subscribed = False
            raise self._failure
        if lost != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._subscribed = False
            msg = f"lost the connection to the MQTT broker at {self._where}: {lost.name}"
            raise ServerUnavailableError(msg)

    # paho's callbacks only note what happened: an exception in one of them would end in
    # paho, not here.

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del userdata, properties
        if reason.is_failure:
            text = f"the MQTT broker at {self._where} refuses the connection: {reason}"
            if str(reason) in _DENIED:
                text += ". Are HEADRACE_MQTT_USERNAME and HEADRACE_MQTT_PASSWORD right?"
                self._failure = AccessDeniedError(text)
            else:
                self._failure = ServerUnavailableError(text)
            return
        self._resumed = flags.session_present
        client.subscribe([(item.topic_filter, item.options()) for item in self._subscriptions])

    def _on_subscribe(
        self,
        client: Client,
        userdata: object,
        message_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, message_id, properties
        for subscription, reason in zip(self._subscriptions, reasons, strict=True):
            if reason.is_failure:
                text = f"the MQTT broker refuses to subscribe {subscription.topic_filter}: {reason}"
                self._failure = AccessDeniedError(text)
                return
        self._subscribed = True

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        if self._failure is None and flags.is_disconnect_packet_from_server:
            text = f"the MQTT broker at {self._where} ended the connection: {reason}"
            self._failure = ServerUnavailableError(text)


def _unreachable(address: MqttAddress, exc: Exception) -> HeadraceError:
    text = f"the MQTT broker at {address.host}:{address.port} can't be reached: {exc}"
    # A certificate that does not fit is for a person to mend, not to be tried again.
    if isinstance(exc, ssl.SSLCertVerificationError):
        return AccessDeniedError(
            f"{text}. Is HEADRACE_MQTT_CA_FILE the CA of its certificate, and HEADRACE_MQTT_HOST "
            "the name in it?"
        )
    if isinstance(exc, ssl.SSLError):
        text += ". Are HEADRACE_MQTT_TLS and HEADRACE_MQTT_PORT right?"
    return ServerUnavailableError(text)
