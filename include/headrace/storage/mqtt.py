"""A persistent MQTT session whose messages the caller acknowledges."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from headrace.errors import HeadraceError, ServerUnavailableError, SessionTakenOverError
from headrace.models.topic_filters import check_disjoint, check_filter
from headrace.storage.mqtt_address import MqttAddress
from headrace.storage.mqtt_client import StreamClient, Subscription, unreachable
from headrace.storage.mqtt_reasons import (
    connection_ended,
    connection_refused,
    lost,
    subscription_refused,
)
from headrace.storage.mqtt_shortfalls import connack_shortfalls, suback_shortfalls
from headrace.storage.mqtt_stream import Publish, PublishStream
from headrace.storage.mqtt_tls import starts_like_tls

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["MqttAddress", "MqttSession", "Subscription"]

_CONNECT_TIMEOUT = timedelta(seconds=5)
#: Maximum bytes of messages that a session keeps while it waits for an answer.
_WAITING_BYTES = 16 * 1024 * 1024
#: mosquitto 2.0 closes the connection without a reason if another client takes the session.
#: This many such ends in a row, each soon after the connection, are treated as a takeover.
_ENDS_WITHOUT_REASON = 3
_SOON_SECONDS = 60.0


class MqttSession:
    """A persistent MQTT 5 session without automatic acknowledgements.

    Not thread-safe: one thread connects, receives and acknowledges.

    Parameters
    ----------
    address
        The broker.
    client_id
        Name of the session. A client with the same name resumes it.
    subscriptions
        Topic filters. They are subscribed at every connection, in case the broker has lost the
        session.
    keepalive
        Keep-alive interval.
    session_expiry
        Time for which the broker keeps the session without a connection.
    receive_maximum
        Maximum number of unacknowledged messages.
    keep_bytes
        Longer payloads are truncated; see `PublishStream`.
    connect_timeout
        Time limit for accepting a connection, and again for the answer.

    Raises
    ------
    ConfigurationError
        If a filter is invalid or two overlap, or if a certificate can't be used.
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
        connect_timeout: timedelta = _CONNECT_TIMEOUT,
    ) -> None:
        self._filters = [item.topic_filter for item in subscriptions]
        for item in self._filters:
            check_filter(item)
        check_disjoint(self._filters)
        self._address = address
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._keepalive = keepalive
        self._session_expiry = session_expiry
        self._timeout = connect_timeout.total_seconds()
        self._properties = Properties(PacketTypes.CONNECT)
        self._properties.SessionExpiryInterval = int(session_expiry.total_seconds())
        self._properties.ReceiveMaximum = receive_maximum
        # No reason strings and user properties in answers, because they can have any length.
        self._properties.RequestProblemInformation = 0
        self._client = StreamClient(client_id, keep_bytes)
        self._client.connect_timeout = self._timeout
        address.apply_to(self._client)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_unsubscribe
        self._client.on_disconnect = self._on_disconnect
        self._ends_without_reason = 0
        self._subscribed_at = 0.0
        self._reset()

    @property
    def connected(self) -> bool:
        """Whether the connection is up."""
        return self._connected

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Limits that the broker sets and their consequences, one sentence each.

        Known after `connect` has returned.
        """
        return tuple(self._shortfalls)

    def connect(self) -> bool:
        """Connect, resume the session and subscribe.

        Returns
        -------
        bool
            Whether the broker still had the session.

        Raises
        ------
        AccessDeniedError
            If the broker refuses the login, the client's certificate or a subscription, or if
            its own certificate is not valid.
        ConfigurationError
            If the broker does not support MQTT 5, or refuses the client id or a filter.
        SessionTakenOverError
            If another client takes the session.
        TransientError
            If the broker can't be reached or does not answer.
        """
        self._reset()
        self._client.use_certificates_of(self._address)
        self._client.vary_packet_ids()
        try:
            code = self._client.connect(
                self._address.host,
                self._address.port,
                keepalive=int(self._keepalive.total_seconds()),
                clean_start=False,
                properties=self._properties,
            )
        except (OSError, ValueError) as exc:
            raise unreachable(self._address, exc) from exc
        self._connected = True
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._broken(code)
        deadline = time.monotonic() + self._timeout
        # Messages that arrive in the meantime stay in the stream until they are taken.
        while not self._subscribed:
            if self._answered and self._is_full:
                # The answer to the subscriptions can follow messages that must be taken first.
                break
            try:
                self._wait_until(deadline)
            except ServerUnavailableError as exc:
                self.leave(0.0)
                if self._answered or self._client.stream.speaks_mqtt or self._address.tls:
                    raise
                raise ServerUnavailableError(self._no_answer(exc)) from exc
            except HeadraceError:
                self.leave(0.0)
                raise
        return self._resumed

    def receive(self, timeout: float, *, reading: bool = True) -> list[Publish]:
        """Wait for the network; return published messages.

        Parameters
        ----------
        timeout
            Seconds to wait at most.
        reading
            Whether to read. Otherwise messages stay in the network, and only acknowledgements and
            pings are sent.

        Raises
        ------
        SessionTakenOverError
            If another client takes the session.
        TransientError
            If the connection is lost.
        """
        stream = self._client.stream
        # Messages that came with the answer to a request have already arrived.
        self._wait(0.0 if stream.unread_bytes else timeout, reading=reading)
        return stream.take()

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Acknowledge messages, in the order given.

        Raises
        ------
        ServerUnavailableError
            If the connection is lost. The broker redelivers those messages.
        """
        try:
            self._client.stream.acknowledge(packet_ids)
        except OSError as exc:
            raise unreachable(self._address, exc) from exc

    def unsubscribe(self) -> None:
        """Remove the subscriptions and wait until the broker confirms.

        Messages that are already queued for the session still arrive.

        Raises
        ------
        AccessDeniedError
            If the broker refuses.
        TransientError
            If the broker does not confirm, or the connection is lost.
        """
        self._unsubscribed = False
        code, request = self._client.unsubscribe(self._filters)
        self._request = request or 0
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise lost(str(self._address), code)
        deadline = time.monotonic() + self._timeout
        while not self._unsubscribed:
            if self._is_full:
                msg = f"the MQTT broker at {self._address} sends messages but no answer"
                raise ServerUnavailableError(msg)
            self._wait_until(deadline)

    def leave(self, timeout: float, *, forever: bool = False) -> None:
        """Send queued packets and disconnect.

        Parameters
        ----------
        timeout
            Time limit in seconds.
        forever
            Whether the broker should delete the session.
        """
        self._connected = False
        if self._client.socket() is None:
            return
        deadline = time.monotonic() + timeout
        stream = self._client.stream
        # If the connection is already lost, the broker keeps the session.
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
    def _is_full(self) -> bool:
        return self._client.stream.unread_bytes > _WAITING_BYTES

    def _reset(self) -> None:
        self._failure: HeadraceError | None = None
        self._connected = self._answered = self._resumed = False
        self._subscribed = self._unsubscribed = False
        self._request = 0
        self._shortfalls: list[str] = []

    def _wait_until(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or (self._is_full and not self._answered):
            msg = f"the MQTT broker at {self._address} accepts connections but does not answer"
            raise ServerUnavailableError(msg)
        self._wait(remaining, reading=True)

    def _wait(self, timeout: float, *, reading: bool) -> None:
        stream = self._client.stream
        try:
            readable, writable, _ = select.select(
                [stream] if reading else [], [stream] if stream.wants_write else [], [], timeout
            )
            if writable:
                stream.flush()
            if readable:
                stream.fill()
        except (OSError, ValueError) as exc:
            self._connected = False
            raise unreachable(self._address, exc) from exc
        except ServerUnavailableError:
            self._connected = False
            raise
        self._let_paho_work(stream)

    def _let_paho_work(self, stream: PublishStream) -> None:
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        while stream.has_control and code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = self._client.loop_read()
        # paho only queues what a callback sends.
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.want_write():
            code = self._client.loop_write()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = self._client.loop_misc()
        if self._failure is not None:
            self._connected = False
            failure, self._failure = self._failure, None
            raise failure
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._broken(code)

    def _broken(self, code: MQTTErrorCode) -> NoReturn:
        self._connected = False
        if self._client.stream.alert is not None:
            raise unreachable(self._address, self._client.stream.alert)
        if code in (MQTTErrorCode.MQTT_ERR_CONN_LOST, MQTTErrorCode.MQTT_ERR_NO_CONN):
            self._check_ends()
        raise lost(str(self._address), code)

    def _check_ends(self) -> None:
        """Distinguish a connection that breaks sometimes from two clients with one name.

        Raises
        ------
        SessionTakenOverError
            If the broker keeps closing new connections.
        """
        if not self._subscribed:
            return
        soon = time.monotonic() - self._subscribed_at < _SOON_SECONDS
        self._ends_without_reason = self._ends_without_reason + 1 if soon else 0
        if self._ends_without_reason >= _ENDS_WITHOUT_REASON:
            msg = (
                f"the MQTT broker at {self._address} accepts the connection and closes it without "
                f"a reason, {self._ends_without_reason} times in a row. Another client probably "
                f"uses the client id {self._client_id}: give each bridge a HEADRACE_BRIDGE_ID of "
                "its own"
            )
            raise SessionTakenOverError(msg)

    def _no_answer(self, exc: Exception) -> str:
        """Return the probable reason why a server did not answer the CONNECT."""
        settings = "Check HEADRACE_MQTT_TLS and HEADRACE_MQTT_PORT"
        first_byte = self._client.stream.first_byte
        if starts_like_tls(first_byte):
            return (
                f"the MQTT broker at {self._address} expects TLS. Set HEADRACE_MQTT_TLS=true, or "
                "HEADRACE_MQTT_PORT to a port without TLS (often 1883)"
            )
        if first_byte is None:
            return f"{exc}, before it answered. {settings}, and that the broker supports MQTT 5"
        return f"what answers at {self._address} is not an MQTT broker. {settings}"

    # The callbacks only store results, because paho would swallow an exception.

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del userdata
        if self._answered:
            msg = f"the MQTT broker at {self._address} answers the connection twice"
            self._failure = ServerUnavailableError(msg)
            return
        self._answered = True
        if reason.is_failure:
            server = getattr(properties, "ServerReference", None)
            self._failure = connection_refused(str(self._address), reason.value, server)
            return
        self._resumed = flags.session_present
        self._shortfalls = connack_shortfalls(
            properties,
            self._filters,
            client_id=self._client_id,
            session_expiry=self._session_expiry,
            keepalive=self._keepalive,
        )
        wanted = [(item.topic_filter, item.options()) for item in self._subscriptions]
        self._request = client.subscribe(wanted)[1] or 0

    def _on_subscribe(
        self,
        client: Client,
        userdata: object,
        message_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        if self._accepts(message_id, reasons):
            codes = [reason.value for reason in reasons]
            self._shortfalls += suback_shortfalls(self._filters, codes)
            self._subscribed = True
            self._subscribed_at = time.monotonic()

    def _on_unsubscribe(
        self,
        client: Client,
        userdata: object,
        message_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        if self._accepts(message_id, reasons):
            self._unsubscribed = True

    def _accepts(self, message_id: int, reasons: list[ReasonCode]) -> bool:
        """Return whether this is the answer to the last request and accepts every filter."""
        if message_id != self._request:
            return False
        self._request = 0
        if len(reasons) != len(self._filters):
            msg = f"the MQTT broker at {self._address} answers {len(reasons)} filters, not all"
            self._failure = ServerUnavailableError(msg)
            return False
        for item, reason in zip(self._filters, reasons, strict=True):
            if reason.is_failure:
                self._failure = subscription_refused(str(self._address), item, reason.value)
                return False
        return True

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata
        if self._failure is not None:
            return
        if flags.is_disconnect_packet_from_server:
            self._answered = True
            server = getattr(properties, "ServerReference", None)
            self._failure = connection_ended(str(self._address), reason.value, server)
        elif reason == "Keep alive timeout":
            self._failure = lost(str(self._address), MQTTErrorCode.MQTT_ERR_KEEPALIVE)
