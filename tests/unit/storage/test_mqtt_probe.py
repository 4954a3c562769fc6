"""The probe for a session neither removes the session nor takes its messages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.errors import ServerUnavailableError
from headrace.storage.mqtt import MqttAddress
from headrace.storage.mqtt_probe import accepts_connections, session_exists
from tests.support.lying_broker import (
    BrokerThatAcceptsAndCloses,
    BrokerThatNeverAnswers,
    Client,
    LyingBroker,
)
from tests.support.packets import packet, publish_packet
from tests.support.processes import wait_for

KEPT = timedelta(days=3)
#: Normal disconnection, with the property Session Expiry Interval set to 0.
REMOVING = b"\x00\x05\x11\x00\x00\x00\x00"


class BrokerThatSendsAtOnce(LyingBroker):
    """Sends queued messages together with its answer to CONNECT."""

    def serve(self, client: Client) -> None:
        received = client.packets()
        assert received is not None
        self.connect_bodies.append(received[1])
        queued = publish_packet(b"fleet/g1", b"reading", 1, 7)
        client.send(packet(0x20, b"\x01\x00\x00") + queued)
        super().serve(client)


def ask(broker: LyingBroker, seconds: float = 5) -> bool:
    address = MqttAddress("127.0.0.1", broker.port)
    return session_exists(address, "bridge", KEPT, timedelta(seconds=seconds))


def test_the_probe_keeps_an_existing_session_and_its_messages() -> None:
    with BrokerThatSendsAtOnce() as broker:
        assert ask(broker)
        wait_for(lambda: broker.disconnects, 10)
    assert broker.acknowledged == []
    assert REMOVING not in broker.disconnects
    (body,) = broker.connect_bodies
    # The property Session Expiry Interval, so that the session's lifetime does not change.
    assert b"\x11" + int(KEPT.total_seconds()).to_bytes(4, "big") in body


def test_a_session_created_by_the_probe_is_removed() -> None:
    with LyingBroker() as broker:
        assert not ask(broker)
        wait_for(lambda: broker.disconnects, 10)
    assert broker.disconnects == [REMOVING]


@pytest.mark.parametrize("broker_type", [BrokerThatAcceptsAndCloses, BrokerThatNeverAnswers])
def test_without_an_answer_the_session_is_unknown(
    broker_type: type[LyingBroker],
) -> None:
    with broker_type() as broker, pytest.raises(ServerUnavailableError):
        ask(broker, 0.5)


def test_a_port_without_a_broker_accepts_no_connections() -> None:
    with LyingBroker() as broker:
        address = MqttAddress("127.0.0.1", broker.port)
        assert accepts_connections(address)
    assert not accepts_connections(address)
