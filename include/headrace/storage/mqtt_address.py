"""Address and login of the MQTT broker."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.client import Client

from headrace.settings import Settings
from headrace.storage.mqtt_tls import client_context

__all__ = ["MqttAddress"]


@dataclass(frozen=True)
class MqttAddress:
    """Address, login and certificates for the broker.

    Parameters
    ----------
    host, port
        Address of the broker.
    username, password
        Login, if the broker requires one. The representation does not show the password.
    tls
        Whether to use TLS.
    ca_file
        CA certificates that sign the broker's certificate; the system's if `None`.
    cert_file, key_file
        The client's certificate and its private key, if the broker requires one.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> MqttAddress:
        """Create the address from the settings."""
        secret = settings.mqtt_password
        return cls(
            host=settings.mqtt_host,
            port=settings.mqtt_port,
            username=settings.mqtt_username,
            password=secret.get_secret_value() if secret else None,
            tls=settings.mqtt_tls,
            ca_file=settings.mqtt_ca_file,
            cert_file=settings.mqtt_cert_file,
            key_file=settings.mqtt_key_file,
        )

    def __repr__(self) -> str:
        return f"MqttAddress(host={self.host!r}, port={self.port}, tls={self.tls})"

    def __str__(self) -> str:
        """Host and port for error messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def apply_to(self, client: Client) -> None:
        """Configure login and TLS of a paho client.

        Raises
        ------
        ConfigurationError
            If the CA file, the certificate or its key can't be used.
        """
        if self.username is not None:
            client.username_pw_set(self.username, self.password)
        if self.tls:
            client.tls_set_context(self.tls_context())

    def tls_context(self) -> ssl.SSLContext:
        """Read the current certificates.

        Raises
        ------
        ConfigurationError
            If a file can't be used.
        """
        return client_context(self.ca_file, self.cert_file, self.key_file)
