"""A fake MQTT broker that sends legal and illegal packets for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from tests.support.packets import packet, variable_length

__all__ = [
    "BrokerThatAcceptsAndCloses",
    "BrokerThatNeverAnswers",
    "BrokerThatSpeaksAnotherProtocol",
    "BrokerWithoutMqtt5",
    "Client",
    "LyingBroker",
]

_CONNECT, _PUBACK, _PUBREC, _PUBREL = 0x10, 0x40, 0x50, 0x60
_SUBSCRIBE, _UNSUBSCRIBE, _PINGREQ, _DISCONNECT = 0x80, 0xA0, 0xC0, 0xE0


class Client:
    """The broker's side of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lock = threading.Lock()
        #: Number of bytes to send at once; 0 for all.
        self.piece = 0

    def send(self, data: bytes) -> None:
        with self.lock:
            step = self.piece or len(data) or 1
            for start in range(0, len(data), step):
                self.sock.sendall(data[start : start + step])

    def packets(self) -> tuple[int, bytes] | None:
        """Yield the client's packets: first byte and body."""
        first = self._exactly(1)
        length = shift = 0
        while first is not None:
            digit = self._exactly(1)
            if digit is None:
                return None
            length |= (digit[0] & 0x7F) << shift
            shift += 7
            if digit[0] < 0x80:
                body = self._exactly(length)
                return None if body is None else (first[0], body)
        return None

    def close(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except OSError:
                return None
            if not piece:
                return None
            data += piece
        return data


@dataclass
class LyingBroker:
    """Answers according to its fields and calls `play` after a client has subscribed.

    Parameters
    ----------
    connack
        Reason code of the CONNACK.
    connack_properties, suback_properties
        Encoded properties of the answers.
    granted
        Reason code for each filter in a SUBACK.
    unsubscribed
        Reason code for each filter in an UNSUBACK; no answer if `None`.
    play
        Behaviour after the subscription; runs in the connection's thread.
    """

    connack: int = 0
    connack_properties: bytes = b""
    suback_properties: bytes = b""
    granted: int = 1
    unsubscribed: int | None = 0
    play: Callable[[Client], None] | None = None
    #: Acknowledged packet ids, by the first byte of the answer.
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    connects: int = 0
    connect_bodies: list[bytes] = field(default_factory=list)
    disconnects: list[bytes] = field(default_factory=list)
    session_present: bool = False

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[Client] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._clients):
            client.close()
        for thread in list(self._threads):
            thread.join(10)
            assert not thread.is_alive()

    def serve(self, client: Client) -> None:
        """Answer one client until it disconnects."""
        while (received := client.packets()) is not None:
            first, body = received
            kind = first & 0xF0
            if kind == _CONNECT:
                self.connects += 1
                self.connect_bodies.append(body)
                flags = bytes([self.session_present and not self.connack, self.connack])
                properties = variable_length(len(self.connack_properties)) + self.connack_properties
                client.send(packet(0x20, flags + properties))
            elif kind == _SUBSCRIBE:
                properties = variable_length(len(self.suback_properties)) + self.suback_properties
                codes = bytes([self.granted]) * _count_filters(body, options=1)
                client.send(packet(0x90, body[:2] + properties + codes))
                self.session_present = True
                if self.play is not None:
                    self.play(client)
            elif kind == _UNSUBSCRIBE and self.unsubscribed is not None:
                codes = bytes([self.unsubscribed]) * _count_filters(body, options=0)
                client.send(packet(0xB0, body[:2] + b"\0" + codes))
            elif kind in (_PUBACK, _PUBREC):
                self.answered(client, kind, int.from_bytes(body[:2], "big"))
            elif kind == _PINGREQ:
                client.send(b"\xd0\x00")
            elif kind == _DISCONNECT:
                self.disconnects.append(body)

    def answered(self, client: Client, kind: int, packet_id: int) -> None:
        """Record a PUBACK or PUBREC."""
        self.acknowledged.append((kind, packet_id))
        if kind == _PUBREC:
            client.send(packet(_PUBREL | 0x02, packet_id.to_bytes(2, "big")))

    def wake_clients(self) -> None:
        """Send each client a packet without effect."""
        for client in list(self._clients):
            with suppress(OSError):
                client.send(b"\xd0\x00")

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            client = Client(sock)
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: Client) -> None:
        # The client may end the connection at any time.
        with suppress(OSError):
            self.serve(client)
        client.close()


class BrokerThatAcceptsAndCloses(LyingBroker):
    def serve(self, client: Client) -> None:
        self.connects += 1
        client.close()


class BrokerThatNeverAnswers(LyingBroker):
    def serve(self, client: Client) -> None:
        while client.packets() is not None:
            self.connects += 1


class BrokerThatSpeaksAnotherProtocol(LyingBroker):
    def serve(self, client: Client) -> None:
        client.packets()
        client.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class BrokerWithoutMqtt5(LyingBroker):
    """Refuses the protocol version in MQTT 3.1.1."""

    def serve(self, client: Client) -> None:
        client.packets()
        client.send(b"\x20\x02\x00\x01")


def _count_filters(body: bytes, options: int) -> int:
    # Packet id without properties, because our client sends none.
    position, count = 3, 0
    while position < len(body):
        position += 2 + int.from_bytes(body[position : position + 2], "big") + options
        count += 1
    return count
