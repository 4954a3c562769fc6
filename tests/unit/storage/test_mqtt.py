"""The session with brokers that refuse requests, set limits, or answer wrongly."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConnectionClosedError,
    HeadraceError,
    ServerUnavailableError,
    SessionTakenOverError,
)
from headrace.storage.broker_statistics import read_broker_statistics
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription
from headrace.storage.mqtt_stream import MALFORMED_TOPIC, Publish
from tests.support.lying_broker import (
    BrokerThatAcceptsAndCloses,
    BrokerThatNeverAnswers,
    BrokerThatSpeaksAnotherProtocol,
    BrokerWithoutMqtt5,
    Client,
    LyingBroker,
)
from tests.support.packets import packet, publish_packet, text, user_properties

KEEP = 1000
TOPIC = b"fleet/g1"


def session_at(port: int, *, seconds: float = 5.0, host: str = "127.0.0.1") -> MqttSession:
    return MqttSession(
        MqttAddress(host, port, username="bridge", password="recognisable"),
        "bridge-1",
        (Subscription("fleet/+"), Subscription("fleet/+/status", retained=True)),
        keepalive=timedelta(seconds=30),
        session_expiry=timedelta(days=7),
        receive_maximum=100,
        keep_bytes=KEEP,
        connect_timeout=timedelta(seconds=seconds),
    )


def receive(session: MqttSession, count: int) -> list[Publish]:
    """Receive this number of messages and acknowledge them."""
    found: list[Publish] = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        found += session.receive(0.1)
    session.acknowledge([item[1] for item in found if item[1]])
    return found


def connect_and_receive(session: MqttSession, count: int) -> list[Publish]:
    session.connect()
    return receive(session, count)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def failure_at(broker: LyingBroker, *, seconds: float = 5.0) -> HeadraceError:
    """Return the error of a connection to a broker."""
    session = session_at(broker.port, seconds=seconds)
    with pytest.raises(HeadraceError) as caught:
        connect_and_receive(session, 1000)
    assert not session.connected
    session.leave(0.0)
    assert "recognisable" not in str(caught.value)
    return caught.value


# --- What a broker may send --------------------------------------------------------------


PROPERTIES = {
    "four user properties of 60,000 bytes": user_properties(4, 60_000),
    "forty of them": user_properties(40, 60_000),
    "many short ones": user_properties(60_000, 3),
    "strings of the longest length": b"\x03" + text(b"c" * 65_535) + b"\x08" + text(b"r" * 65_535),
    "every property": b"".join(
        (
            b"\x01\x01",
            b"\x02\x00\x00\x00\x3c",
            b"\x03" + text(b"application/json"),
            b"\x08" + text(b"answer/here"),
            b"\x09" + text(bytes(range(256))),
            b"\x0b\xff\xff\xff\x7f\x0b\x01",
            b"\x26" + text(b"") + text("\ufeffx".encode()),
        )
    ),
    "an alias that nobody allowed": b"\x23\x00\x07",
    "what is no property": b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("kind", PROPERTIES)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("piece", [0, 50_000])
def test_a_message_with_any_properties_passes(kind: str, qos: int, piece: int) -> None:
    packets = b"".join(
        (
            publish_packet(TOPIC, b"with", qos, 7, 0, PROPERTIES[kind]),
            publish_packet(TOPIC, b"y" * (KEEP + 1), qos, 8, 1, PROPERTIES[kind]),
            publish_packet(TOPIC, b"", qos, 9, 0, PROPERTIES[kind]),
            publish_packet(TOPIC, b"next", 1, 10),
        )
    )

    def play(client: Client) -> None:
        client.piece = piece
        client.send(packets)

    with LyingBroker(play=play) as broker:
        session = session_at(broker.port)
        session.connect()
        found = receive(session, 4)
        wait_until(lambda: len(broker.acknowledged) == (4 if qos else 1))
        session.leave(1.0)
    assert [(item[1], len(item[3])) for item in found] == [
        (7 if qos else 0, 4),
        (8 if qos else 0, KEEP),
        (9 if qos else 0, 0),
        (10, 4),
    ]
    assert {item[2] for item in found} == {TOPIC}
    answer = {1: 0x40, 2: 0x50}
    expected = [(answer[qos], number) for number in (7, 8, 9)] if qos else []
    assert broker.acknowledged == [*expected, (0x40, 10)]


MALFORMED = {
    "no topic": packet(0x32, b"\x00"),
    "a topic longer than the packet": packet(0x32, b"\x40\x00abc"),
    "no packet id": packet(0x32, text(TOPIC)),
    "no properties": packet(0x32, text(TOPIC) + b"\x00\x07"),
    "an endless length of properties": packet(0x32, text(TOPIC) + b"\x00\x07" + b"\xff" * 9),
    "properties longer than the packet": packet(0x32, text(TOPIC) + b"\x00\x07\x40abc"),
    "QoS 3": packet(0x36, text(TOPIC) + b"\x00\x07\x00abc"),
    "long, with properties longer still": packet(
        0x32, text(TOPIC) + b"\x00\x07\xff\xff\xff\x7f" + b"z" * 300_000
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_message_is_skipped_the_second_time(kind: str) -> None:
    def play(client: Client) -> None:
        client.send(MALFORMED[kind] + publish_packet(TOPIC, b"next", 1, 8))

    with LyingBroker(play=play) as broker:
        session = session_at(broker.port)
        with pytest.raises(ServerUnavailableError, match="malformed packet: a PUBLISH") as caught:
            connect_and_receive(session, 2)
        assert "TLS" not in str(caught.value)
        session.leave(0.0)
        session.connect()
        aside, good = receive(session, 2)
        session.leave(1.0)
    known = MALFORMED[kind].count(b"\x00\x07") > 0
    assert (aside[1], aside[2]) == (7 if known else 0, MALFORMED_TOPIC)
    assert aside[3] in MALFORMED[kind]
    assert good[1:] == (8, TOPIC, b"next")


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00\x00",
        b"\x10\x02ab",
        b"\x20\x02\x00\x80",
        b"\x40\x02\x00\x07",
        b"\x62\x02\x00\x07",
        b"\x90\x03\x00\x07\x00",
        b"\x90\x05\xff\xff\x00\x01\x01",
        b"\xb0\x04\x00\x07\x00\x00",
        b"\xe0\x02\x70\x00",
        b"\xe0\x00",
        b"\xf0\x02\x18\x00",
        b"\xff\xff\xff\xff\xff\xff",
        packet(0xE0, b"\x8b" + b"\xff\xff\x7f" + user_properties(30, 60_000)[: 128**3 - 1]),
    ],
)
def test_any_other_packet_ends_at_most_the_connection(noise: bytes) -> None:
    played: list[bytes] = [noise]

    def play(client: Client) -> None:
        if played:
            client.send(played.pop())
        client.send(publish_packet(TOPIC, b"good", 1, 3))

    with LyingBroker(play=play) as broker:
        session = session_at(broker.port)
        for _ in range(2):
            try:
                session.connect()
                found = receive(session, 1)
                break
            except ServerUnavailableError:
                session.leave(0.0)
        assert [item[3] for item in found] == [b"good"]
        session.leave(1.0)


# --- What a broker grants ----------------------------------------------------------------


SHORTFALLS = {
    "a session of a minute": ({"connack_properties": b"\x11\x00\x00\x00\x3c"}, "60 s"),
    "no session": ({"connack_properties": b"\x11\x00\x00\x00\x00"}, "0 s"),
    "QoS 0 in the CONNACK": ({"connack_properties": b"\x24\x00"}, "QoS 0 only"),
    "QoS 0 in the SUBACK": ({"granted": 0}, "QoS 0 for fleet/"),
    "no retained messages": ({"connack_properties": b"\x25\x00"}, "retained"),
    "a longer keep-alive": ({"connack_properties": b"\x13\x01\x2c"}, "300 s"),
    "no keep-alive": ({"connack_properties": b"\x13\x00\x00"}, "off"),
    "another session name": ({"connack_properties": b"\x12" + text(b"other")}, "'other'"),
    "no wildcards": ({"connack_properties": b"\x28\x00"}, "wildcards"),
    "all of it behind 2 MB": (
        {"connack_properties": b"\x24\x00" + user_properties(30, 60_000) + b"\x25\x00"},
        "QoS 0 only",
    ),
}


@pytest.mark.parametrize("kind", SHORTFALLS)
def test_limits_of_a_broker_are_reported(kind: str) -> None:
    fields, expected = SHORTFALLS[kind]
    with LyingBroker(**fields) as broker:  # type: ignore[arg-type]
        session = session_at(broker.port)
        session.connect()
        assert expected in " ".join(session.shortfalls)
        session.leave(1.0)


def test_a_broker_that_grants_everything_has_no_shortfalls() -> None:
    properties = (
        b"\x11\x00\x09\x3a\x80\x13\x00\x0a\x21\x00\x14\x22\x00\x0a\x24\x01\x27\x00\x10\x00\x00"
    )
    with LyingBroker(connack_properties=properties, granted=2) as broker:
        session = session_at(broker.port)
        assert not session.connect()
        assert session.shortfalls == ()
        session.leave(1.0)
        assert session.connect()
        session.leave(1.0, forever=True)
        wait_until(lambda: len(broker.disconnects) == 2)
    assert broker.disconnects[-1].endswith(b"\x11\x00\x00\x00\x00")


# --- What a broker refuses ---------------------------------------------------------------

CONNACKS = {
    0x04: (AccessDeniedError, "HEADRACE_MQTT_PASSWORD"),
    0x80: (ServerUnavailableError, "unspecified"),
    0x81: (ServerUnavailableError, "malformed"),
    0x84: (ConfigurationError, "MQTT 5"),
    0x85: (ConfigurationError, "HEADRACE_BRIDGE_ID"),
    0x86: (AccessDeniedError, "HEADRACE_MQTT_USERNAME"),
    0x87: (AccessDeniedError, "HEADRACE_MQTT_USERNAME"),
    0x88: (ServerUnavailableError, "unavailable"),
    0x89: (ServerUnavailableError, "busy"),
    0x8A: (AccessDeniedError, "banned"),
    0x8C: (AccessDeniedError, "user name and password"),
    0x97: (ServerUnavailableError, "quota"),
    0x9C: (ServerUnavailableError, "HEADRACE_MQTT_HOST"),
    0x9D: (ConfigurationError, "HEADRACE_MQTT_HOST"),
    0x9F: (ServerUnavailableError, "rate"),
}


@pytest.mark.parametrize("code", [code for code in CONNACKS if code >= 0x80])
def test_the_error_about_a_refused_connection_has_reason_and_next_step(code: int) -> None:
    kind, expected = CONNACKS[code]
    with LyingBroker(connack=code) as broker:
        error = failure_at(broker)
    assert type(error) is kind
    assert expected in str(error)


DISCONNECTS = {
    0x8B: "shutting down",
    0x8D: "HEADRACE_MQTT_KEEPALIVE",
    0x93: "receive maximum",
    0x95: "packet too large",
    0x97: "quota",
    0x98: "administrative",
    0x9C: "HEADRACE_MQTT_HOST",
    0xA0: "maximum connect time",
}


@pytest.mark.parametrize("code", DISCONNECTS)
def test_the_error_about_an_ended_connection_has_the_reason(code: int) -> None:
    reference = b"\x1c" + text(b"other.example")
    body = bytes([code]) + bytes([len(reference)]) + reference
    with LyingBroker(play=lambda client: client.send(packet(0xE0, body))) as broker:
        error = failure_at(broker)
    assert type(error) is ServerUnavailableError
    assert DISCONNECTS[code] in str(error)
    assert "other.example" in str(error)


def test_a_session_takeover_is_a_separate_error() -> None:
    with LyingBroker(play=lambda client: client.send(b"\xe0\x01\x8e")) as broker:
        error = failure_at(broker)
    assert type(error) is SessionTakenOverError
    assert "HEADRACE_BRIDGE_ID" in str(error)


def test_repeated_closing_without_a_reason_hints_at_a_takeover() -> None:
    """Mosquitto 2.0 does this if another client takes the session."""
    with LyingBroker(play=Client.close) as broker:
        session = session_at(broker.port)
        kinds = []
        for _ in range(4):
            try:
                connect_and_receive(session, 1)
            except HeadraceError as exc:
                kinds.append(type(exc))
        session.leave(0.0)
    assert kinds[:2] == [ConnectionClosedError] * 2
    assert kinds[2:] == [SessionTakenOverError] * 2


SILENT = {
    "closes": (BrokerThatAcceptsAndCloses, "MQTT 5", ServerUnavailableError),
    "never answers": (BrokerThatNeverAnswers, "does not answer", ServerUnavailableError),
    "another protocol": (
        BrokerThatSpeaksAnotherProtocol,
        "not an MQTT broker",
        ServerUnavailableError,
    ),
    "MQTT 3.1.1": (BrokerWithoutMqtt5, "MQTT 5", ConfigurationError),
}


@pytest.mark.parametrize("kind", SILENT)
def test_a_server_that_is_not_an_mqtt_5_broker_is_reported(kind: str) -> None:
    broker_type, expected, error_type = SILENT[kind]
    with broker_type() as broker:
        error = failure_at(broker, seconds=0.5)
    assert type(error) is error_type
    assert expected in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        (0x80, ServerUnavailableError, "fleet/+"),
        (0x87, AccessDeniedError, "fleet/+"),
        (0x8F, ConfigurationError, "HEADRACE_MQTT_TOPICS"),
        (0x97, ServerUnavailableError, "quota"),
        (0x9E, ConfigurationError, "HEADRACE_MQTT_TOPICS"),
        (0xA2, ConfigurationError, "HEADRACE_MQTT_TOPICS"),
    ],
)
def test_a_refused_subscription_names_the_filter(
    code: int, kind: type[HeadraceError], expected: str
) -> None:
    with LyingBroker(granted=code) as broker:
        error = failure_at(broker)
    assert type(error) is kind
    assert expected in str(error)


# --- Requests ----------------------------------------------------------------------------


def test_unsubscribe_waits_for_the_answer_and_keeps_what_comes_before_it() -> None:
    with LyingBroker(play=lambda client: client.send(publish_packet(TOPIC, b"x", 1, 5))) as broker:
        session = session_at(broker.port)
        session.connect()
        session.unsubscribe()
        assert [item[1] for item in session.receive(5.0)] == [5]
        session.leave(1.0)


@pytest.mark.parametrize(
    ("code", "kind"), [(None, ServerUnavailableError), (0x87, AccessDeniedError)]
)
def test_unsubscribe_fails_if_the_broker_does_not_confirm(
    code: int | None, kind: type[HeadraceError]
) -> None:
    with LyingBroker(unsubscribed=code) as broker:
        session = session_at(broker.port, seconds=0.5)
        session.connect()
        with pytest.raises(kind):
            session.unsubscribe()
        session.leave(0.0)


def test_a_flood_before_an_answer_neither_ends_the_connection_nor_fills_the_memory() -> None:
    class BrokerThatFloodsBeforeItAnswers(LyingBroker):
        def serve(self, client: Client) -> None:
            client.packets()
            client.send(b"\x20\x03\x00\x00\x00")
            for _ in range(40):
                client.send(publish_packet(TOPIC, b"z" * 1_000_000, 0, 0))
            super().serve(client)

    with BrokerThatFloodsBeforeItAnswers() as broker:
        session = session_at(broker.port)
        session.connect()
        found = []
        while len(found) < 40:
            found += session.receive(1.0)
        assert session._client.stream.unread_bytes < 1_000_000
        session.leave(1.0)


def test_the_session_reconnects_to_a_broker_that_confuses_packet_ids() -> None:
    """mochi-mqtt does this if a client has unacknowledged messages."""

    class BrokerThatConfusesPacketIds(LyingBroker):
        def serve(self, client: Client) -> None:
            client.packets()
            client.send(b"\x20\x03\x01\x00\x00")
            _, body = client.packets() or (0, b"")
            in_use = int.from_bytes(body[:2], "big") <= 5000
            client.send(packet(0x90, body[:2] + b"\x00" + (b"\x91" if in_use else b"\x01") * 2))
            client.packets()

    def connects_again(broker: LyingBroker) -> bool:
        session = session_at(broker.port)
        try:
            return session.connect()
        except ServerUnavailableError as exc:
            assert "packet identifier in use" in str(exc)
            return False
        finally:
            session.leave(0.0)

    with BrokerThatConfusesPacketIds() as broker:
        # Several attempts, because some random ids collide.
        assert sum(connects_again(broker) for _ in range(10)) >= 5


def test_filters_that_overlap_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"fleet/\+.*fleet/gov"):
        MqttSession(
            MqttAddress("127.0.0.1", 1),
            "bridge-1",
            (Subscription("fleet/+"), Subscription("fleet/gov")),
            keepalive=timedelta(seconds=30),
            session_expiry=timedelta(days=7),
            receive_maximum=100,
            keep_bytes=KEEP,
        )


def test_an_ipv6_address_is_written_with_brackets() -> None:
    session = session_at(1, host="::1", seconds=0.5)
    with pytest.raises(ServerUnavailableError, match=r"\[::1\]:1 can't be reached"):
        session.connect()


# --- Statistics --------------------------------------------------------------------------


def test_statistics_of_the_broker_are_read() -> None:
    def play(client: Client) -> None:
        for topic, value in (
            (b"$SYS/broker/publish/messages/dropped", b"17"),
            (b"$SYS/broker/store/messages/count", b"52"),
            (b"$SYS/broker/messages/stored", b"many"),
            (b"fleet/g1", b"1"),
        ):
            client.send(publish_packet(topic, value, 1, 1, 1))

    with LyingBroker(play=play) as broker:
        address = MqttAddress("127.0.0.1", broker.port)
        found = read_broker_statistics(address, timedelta(seconds=5))
    assert found == {"dropped": 17, "stored": 52}


@pytest.mark.parametrize(
    "broker_type", [LyingBroker, BrokerThatAcceptsAndCloses, BrokerThatNeverAnswers]
)
def test_a_broker_without_statistics_gives_none(broker_type: type[LyingBroker]) -> None:
    with broker_type() as broker:
        address = MqttAddress("127.0.0.1", broker.port)
        begun = time.monotonic()
        assert read_broker_statistics(address, timedelta(seconds=0.5)) is None
        assert time.monotonic() - begun < 2


def test_statistics_never_use_the_bridge_s_login() -> None:
    with LyingBroker() as broker:
        address = MqttAddress("127.0.0.1", broker.port, username="the-bridge", password="x")
        assert read_broker_statistics(address, timedelta(seconds=0.5)) is None
    (body,) = broker.connect_bodies
    assert b"headrace-statistics-" in body
    assert b"the-bridge" not in body


def test_a_counter_that_the_broker_has_not_published_yet_is_zero() -> None:
    def play(client: Client) -> None:
        client.send(publish_packet(b"$SYS/broker/store/messages/count", b"52", 1, 1, 1))

    with LyingBroker(play=play) as broker:
        address = MqttAddress("127.0.0.1", broker.port)
        found = read_broker_statistics(address, timedelta(seconds=5))
    assert found == {"dropped": 0, "stored": 52}
