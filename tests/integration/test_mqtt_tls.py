"""TLS and client certificates with a real mosquitto; errors have the next step."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    HeadraceError,
    ServerUnavailableError,
)
from headrace.profile import load_profile
from headrace.settings import load_settings
from headrace.simulation.fleet import Fleet, FleetPlan
from headrace.storage.broker_statistics import read_broker_statistics
from headrace.storage.mqtt import MqttAddress, MqttSession, Subscription
from headrace.storage.mqtt_probe import session_exists
from native import servers
from native.programs import find_mosquitto
from native.servers import LOOPBACK
from tests.support.backbone import make_folder
from tests.support.certificates import Authority
from tests.support.lying_broker import LyingBroker
from tests.support.processes import Process, free_port, wait_for

DAY = timedelta(days=1)


class Listeners:
    """One mosquitto with a listener for each kind of failure."""

    def __init__(self) -> None:
        self.folder = make_folder()
        self.ca = Authority(self.folder, "ca")
        self.stranger = Authority(self.folder, "stranger")
        self.client = self.ca.issue("client")
        self.ports = {name: free_port() for name in ("plain", "tls", "expired", "other", "closed")}
        made = {
            "tls": self.ca.issue("tls"),
            "expired": self.ca.issue("expired", starts=-2 * DAY, ends=-DAY),
            "other": self.ca.issue("other", "broker.example"),
            "closed": self.ca.issue("closed"),
        }
        lines = ["allow_anonymous true"]
        for name, (certificate, key) in made.items():
            lines += [f"listener {self.ports[name]} {LOOPBACK}"]
            lines += [f"certfile {certificate}", f"keyfile {key}"]
        # The last listener requires a client certificate.
        lines += [f"cafile {self.ca.ca_file}", "require_certificate true"]
        mosquitto = servers.mosquitto(
            find_mosquitto(print),
            self.folder / "mosquitto",
            port=self.ports["plain"],
            lines=tuple(lines),
        )
        self.process = Process(mosquitto, self.folder / "mosquitto.log")

    def address(self, listener: str, *, tls: bool = True, certificate: str = "") -> MqttAddress:
        """Return a listener's working address, with the given changes."""
        files = (self.folder / f"{certificate}.{kind}" for kind in ("crt", "key"))
        cert_file, key_file = files if certificate else (None, None)
        return MqttAddress(
            LOOPBACK,
            self.ports[listener],
            tls=tls,
            ca_file=self.ca.ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )


@pytest.fixture(scope="module")
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    made.process.start()
    try:
        yield made
    finally:
        made.process.kill()
        shutil.rmtree(made.folder, ignore_errors=True)


def session_at(address: MqttAddress, client_id: str = "bridge-1") -> MqttSession:
    return MqttSession(
        address,
        client_id,
        (Subscription("fleet/+"),),
        keepalive=timedelta(seconds=30),
        session_expiry=timedelta(days=7),
        receive_maximum=100,
        keep_bytes=1000,
        connect_timeout=timedelta(seconds=5),
    )


def connect(address: MqttAddress) -> None:
    session = session_at(address)
    try:
        session.connect()
    finally:
        session.leave(1.0)


def failure(address: MqttAddress) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        connect(address)
    return caught.value


def test_each_tls_failure_is_reported_with_the_next_step(listeners: Listeners) -> None:
    good = listeners.address("tls")
    listeners.stranger.issue("refused")
    listeners.ca.issue("outdated", starts=-2 * DAY, ends=-DAY)
    closed = listeners.address
    cases = {
        "unknown CA": (
            replace(good, ca_file=listeners.stranger.ca_file),
            AccessDeniedError,
            r"not signed by .*stranger.pem.*Set HEADRACE_MQTT_CA_FILE",
        ),
        "the system's CAs": (
            replace(good, ca_file=None),
            AccessDeniedError,
            r"not signed by the system's CAs.*Set HEADRACE_MQTT_CA_FILE",
        ),
        "another host": (
            listeners.address("other"),
            AccessDeniedError,
            r"not for '127.0.0.1'. Set HEADRACE_MQTT_HOST",
        ),
        "another name": (
            replace(good, host="localhost"),
            AccessDeniedError,
            r"not for 'localhost'. Set HEADRACE_MQTT_HOST",
        ),
        "expired": (listeners.address("expired"), AccessDeniedError, r"has expired. Renew it"),
        "no client certificate": (
            closed("closed"),
            AccessDeniedError,
            r"without a certificate: it requires one. Set HEADRACE_MQTT_CERT_FILE and",
        ),
        "another CA's client certificate": (
            closed("closed", certificate="refused"),
            AccessDeniedError,
            r"refuses the client certificate .*refused.crt: it does not know the CA",
        ),
        "an expired client certificate": (
            closed("closed", certificate="outdated"),
            AccessDeniedError,
            r"refuses the client certificate .*outdated.crt: it has expired",
        ),
        "a plain listener": (
            replace(good, port=listeners.ports["plain"]),
            ServerUnavailableError,
            r"does not answer in TLS.*set HEADRACE_MQTT_PORT.*HEADRACE_MQTT_TLS=false",
        ),
        "a TLS listener": (
            listeners.address("tls", tls=False),
            ServerUnavailableError,
            r"HEADRACE_MQTT_TLS",
        ),
    }
    said = {name: failure(address) for name, (address, _, _) in cases.items()}
    wrong = {
        name: f"{type(said[name]).__name__}: {said[name]}"
        for name, (_, kind, pattern) in cases.items()
        if type(said[name]) is not kind or not re.search(pattern, str(said[name]))
    }
    assert not wrong


def test_every_connection_presents_the_client_certificate(listeners: Listeners) -> None:
    """The bridge's session, the probe for it, and the simulated fleet present it."""
    address = listeners.address("closed", certificate="client")
    connect(address)
    assert session_exists(address, "bridge-1", timedelta(days=7))
    assert simulated(address) == "connected"
    without = listeners.address("closed")
    with pytest.raises(AccessDeniedError, match="HEADRACE_MQTT_CERT_FILE"):
        session_exists(without, "bridge-1", timedelta(days=7))
    assert "HEADRACE_MQTT_CERT_FILE" in simulated(without)
    # A broker may name sessions after certificates, so the statistics are read without one.
    assert read_broker_statistics(address, timedelta(seconds=2)) is None
    assert read_broker_statistics(listeners.address("tls"), timedelta(seconds=5)) is not None


def simulated(address: MqttAddress) -> str:
    """Return `connected` or the logged error of a simulated device."""
    mqtt = load_settings(Path(os.devnull)).profile
    fleet = Fleet(FleetPlan(1, (0.1, 0.1), 1), load_profile(mqtt).mqtt, [address])
    (device,) = fleet._devices
    stop = threading.Event()
    thread = threading.Thread(target=fleet.run, args=(stop,))
    with capture_logs() as logged:
        thread.start()
        try:
            return wait_for(
                lambda: "connected" if device.connected else "".join(map(str, logged)), 20
            )
        finally:
            stop.set()
            thread.join()


def test_renewed_certificates_are_read_at_the_next_connection(
    listeners: Listeners, tmp_path: Path
) -> None:
    cert_file, key_file = (tmp_path / f"renewed.{kind}" for kind in ("crt", "key"))
    for file, source in zip((cert_file, key_file), listeners.stranger.issue("old"), strict=True):
        shutil.copy(source, file)
    address = replace(listeners.address("closed"), cert_file=cert_file, key_file=key_file)
    session = session_at(address, "bridge-2")
    with pytest.raises(AccessDeniedError):
        session.connect()
    for file, source in zip((cert_file, key_file), listeners.client, strict=True):
        shutil.copy(source, file)
    session.connect()
    session.leave(1.0)


def test_unusable_certificates_are_reported(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("client")
    _, other_key = authority.issue("other")
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        load_pem_private_key(key.read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"recognisable")
        )
    )
    broken = tmp_path / "broken.crt"
    broken.write_bytes(certificate.read_bytes()[:100] + b"\n")
    cases = [
        (certificate, other_key, r"HEADRACE_MQTT_KEY_FILE: .*other.key does not belong to .*"),
        (certificate, locked, r"HEADRACE_MQTT_KEY_FILE: the key in .*locked.key is encrypted.*"),
        (key, key, r"HEADRACE_MQTT_CERT_FILE: .*client.key holds no certificate"),
        (certificate, certificate, r"HEADRACE_MQTT_KEY_FILE: .*client.crt holds no private key"),
        (broken, key, r"HEADRACE_MQTT_CERT_FILE.*broken.crt"),
        (tmp_path, key, r"HEADRACE_MQTT_CERT_FILE: .* can't be read: Is a directory"),
    ]
    for cert_file, key_file, said in cases:
        address = MqttAddress(
            LOOPBACK, 1, tls=True, ca_file=authority.ca_file, cert_file=cert_file, key_file=key_file
        )
        with pytest.raises(ConfigurationError, match=said):
            address.tls_context()


def test_a_broker_that_expects_tls_is_recognised() -> None:
    class BrokerThatAnswersWithAnAlert(LyingBroker):
        def serve(self, client: object) -> None:
            client.packets()  # type: ignore[attr-defined]
            client.send(b"\x15\x03\x03\x00\x02\x02\x46")  # type: ignore[attr-defined]

    with BrokerThatAnswersWithAnAlert() as broker:
        said = str(failure(MqttAddress(LOOPBACK, broker.port)))
    assert "expects TLS. Set HEADRACE_MQTT_TLS=true" in said
