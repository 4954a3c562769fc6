"""Servers that all require a login and TLS."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import urllib3
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from native import servers
from native.servers import LOOPBACK
from native.stack import login_lines
from tests.support.backbone import Backbone
from tests.support.certificates import Authority
from tests.support.devices import Publisher
from tests.support.installation import Installation
from tests.support.processes import Process, free_port

__all__ = ["SECRETS", "Guarded"]

#: Recognisable values, so that a test can search for leaked secrets.
SECRETS = {
    "HEADRACE_MQTT_PASSWORD": "recognisable-mqtt-password",
    "HEADRACE_KAFKA_PASSWORD": "recognisable-kafka-password",
    "HEADRACE_INFLUX_ADMIN_PASSWORD": "recognisable-influx-password",
    "HEADRACE_INFLUX_ADMIN_TOKEN": "recognisable-influx-token",
}
_KAFKA_USER = "headrace"


class Guarded(Backbone):
    """Kafka with SCRAM over TLS, InfluxDB with HTTPS, mosquitto with logins, rules and TLS.

    Kafka has a listener with SASL, one with TLS only, and one without either. The tests use the
    last one to create Kafka's user.
    """

    def __post_init__(self) -> None:
        found, folder, log = self.programs, self.folder, self.folder / "log"
        self.authority = Authority(folder, "ca")
        self.stranger = Authority(folder, "another-ca")
        self.kafka_tls_port, self._kafka_plain_port = free_port(), free_port()
        self._toxiproxy = None
        self.influx_token = SECRETS["HEADRACE_INFLUX_ADMIN_TOKEN"]
        self.influx_password = SECRETS["HEADRACE_INFLUX_ADMIN_PASSWORD"]
        certificate, key = self.authority.issue("server")
        kafka = servers.kafka(
            found.kafka,
            folder / "kafka",
            port=self._kafka_plain_port,
            controller_port=(controller_port := free_port()),
            extra=self._kafka_listeners(controller_port, certificate, key),
        )
        influxdb = servers.influxdb(
            found.influxd,
            folder / "influxdb",
            port=self.influx_port,
            extra={"INFLUXD_TLS_CERT": str(certificate), "INFLUXD_TLS_KEY": str(key)},
        )
        self.installation = Installation(self, folder / "installation", env=self._settings())
        mosquitto = servers.mosquitto(
            found.mosquitto,
            folder / "mosquitto",
            port=self.mqtt_port,
            lines=(
                f"certfile {certificate}",
                f"keyfile {key}",
                *login_lines(self.installation.settings),
            ),
        )
        self.kafka = Process(kafka, log / "kafka.log")
        self.influxdb = Process(
            dataclasses.replace(influxdb, ready=self._influxdb_answers), log / "influxdb.log"
        )
        self.mosquitto = Process(mosquitto, log / "mosquitto.log")

    def start(self) -> Installation:
        """Start all servers and provision them."""
        for process in self.processes:
            process.launch()
        for process in self.processes:
            servers.wait_until_ready(process.server, lambda process=process: process.alive)
        self._make_kafka_user()
        self.installation.provision()
        return self.installation

    def device(self, device: str, password: str, **options: Any) -> Publisher:
        """Create a device for this broker; its login is its id."""
        publisher = Publisher(self.mqtt_port, **options)
        publisher.client.tls_set(str(self.authority.ca_file))
        publisher.client.username_pw_set(device, password)
        return publisher

    def _settings(self) -> dict[str, str]:
        ca_file = str(self.authority.ca_file)
        return {
            "HEADRACE_MQTT_LOGIN": "password",
            "HEADRACE_MQTT_USERNAME": "headrace-bridge",
            "HEADRACE_MQTT_PASSWORD": SECRETS["HEADRACE_MQTT_PASSWORD"],
            "HEADRACE_MQTT_TLS": "true",
            "HEADRACE_MQTT_CA_FILE": ca_file,
            "HEADRACE_FLEET_SIZE": "3",
            "HEADRACE_KAFKA_PROTOCOL": "SASL_SSL",
            "HEADRACE_KAFKA_USERNAME": _KAFKA_USER,
            "HEADRACE_KAFKA_PASSWORD": SECRETS["HEADRACE_KAFKA_PASSWORD"],
            "HEADRACE_KAFKA_CA_FILE": ca_file,
            "HEADRACE_INFLUX_TLS": "true",
            "HEADRACE_INFLUX_CA_FILE": ca_file,
        }

    def _kafka_listeners(
        self, controller_port: int, certificate: Path, key: Path
    ) -> dict[str, str]:
        """Return Kafka's properties. A PEM key store has key and certificate in one file."""
        store = self.folder / "kafka-store.pem"
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        ways = {
            "PLAINTEXT": self._kafka_plain_port,
            "GUARDED": self.kafka_port,
            "ENCRYPTED": self.kafka_tls_port,
        }
        listeners = ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ways.items())
        return {
            "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "GUARDED:SASL_SSL,ENCRYPTED:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.guarded.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }

    def _make_kafka_user(self) -> None:
        admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{self._kafka_plain_port}"})
        made = UserScramCredentialUpsertion(
            _KAFKA_USER,
            ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096),
            SECRETS["HEADRACE_KAFKA_PASSWORD"].encode(),
        )
        for future in admin.alter_user_scram_credentials([made]).values():
            future.result(30)

    def _influxdb_answers(self) -> bool:
        url = f"https://{LOOPBACK}:{self.influx_port}/health"
        try:
            with urllib3.PoolManager(ca_certs=str(self.authority.ca_file)) as pool:
                return pool.request("GET", url, timeout=2, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False
