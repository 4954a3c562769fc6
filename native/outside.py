"""Configures the bundled broker and Kafka for devices and consumers on other machines.

Both listen there only with TLS and logins. Listeners on loopback do not change.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from headrace.certificates.served import ServerCertificate, server_certificate
from headrace.checks.addresses import endpoints, url_host
from headrace.errors import ConfigurationError
from headrace.outside import broker_is_outside, kafka_advertised, outside_addresses
from headrace.settings import BundledServer, Settings
from native.servers import LOOPBACK

__all__ = [
    "broker_lines",
    "kafka_properties",
    "outside_ports",
    "refuse_servers_of_others",
    "shown_addresses",
]

_KAFKA_LISTENER = "OUTSIDE"


def broker_lines(settings: Settings, folder: Path) -> tuple[str, ...]:
    """Return mosquitto's configuration lines for its listeners and write the files for them.

    Raises
    ------
    ConfigurationError
        If there is no usable certificate.
    """
    if not broker_is_outside(settings):
        return ()
    certificate = server_certificate(settings)
    digest = _digest(certificate)
    # The names contain a hash of the content, so a new certificate restarts the broker.
    cert_file = folder / f"server-{digest}.crt"
    key_file = folder / f"server-{digest}.key"
    _replace(folder, {cert_file: certificate.chain, key_file: certificate.key})
    common = (
        f"certfile {cert_file}",
        f"keyfile {key_file}",
        # Each listener needs this, or a login could take a bridge's session by its client id.
        "use_username_as_clientid true",
    )
    lines: list[str] = []
    for given, protocol in (
        (settings.mqtt_listen, "mqtt"),
        (settings.mqtt_websocket_listen, "websockets"),
    ):
        for host, port in endpoints(given) if given else ():
            lines += [f"listener {port} {host}", f"protocol {protocol}", *common]
    return tuple(lines)


def kafka_properties(
    settings: Settings, folder: Path, *, port: int, controller_port: int
) -> dict[str, str]:
    """Return Kafka's properties for its listener and write the key store for it.

    Clients on loopback have no login: Kafka calls them ``ANONYMOUS`` and lets them do
    everything, as before. Consumers on other machines may do what `headrace login --consumer`
    allows.

    Raises
    ------
    ConfigurationError
        If there is no usable certificate.
    """
    if settings.kafka_listen is None:
        return {}
    certificate = server_certificate(settings)
    # Kafka reads the key and the certificate from one file.
    store = folder / f"server-{_digest(certificate)}.pem"
    _replace(folder, {store: certificate.key + certificate.chain})
    inside = f"PLAINTEXT://{LOOPBACK}:{port}"
    outside = f"{_KAFKA_LISTENER}://"
    prefix = f"listener.name.{_KAFKA_LISTENER.lower()}"
    return {
        "listeners": f"{inside},{outside}{settings.kafka_listen},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"{inside},{outside}{kafka_advertised(settings)}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
        f"{_KAFKA_LISTENER}:SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        f"{prefix}.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        f"{prefix}.ssl.keystore.type": "PEM",
        f"{prefix}.ssl.keystore.location": str(store),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }


def outside_ports(settings: Settings, *names: str) -> dict[str, int]:
    """Return the ports for other machines by setting."""
    return {
        name: addresses[0][1]
        for name, addresses in outside_addresses(settings).items()
        if name in names
    }


def shown_addresses(settings: Settings) -> list[tuple[str, str, str]]:
    """Return the rows for the panel of `make up`: purpose, address, and logins."""
    if not outside_addresses(settings):
        return []
    name = next(iter(server_certificate(settings).names), "this machine")
    rows = []
    for what, given in (
        ("MQTT with TLS", settings.mqtt_listen),
        ("MQTT, WebSockets", settings.mqtt_websocket_listen),
    ):
        ports = dict.fromkeys(port for _, port in endpoints(given)) if given else ()
        rows += [(what, f"{url_host(name)}:{port}", "logins by `headrace login`") for port in ports]
    if settings.kafka_listen:
        address = kafka_advertised(settings) or ""
        rows.append(("Kafka with TLS", address, "logins by `headrace login --consumer`"))
    return rows


def refuse_servers_of_others(settings: Settings, bundled: frozenset[BundledServer]) -> None:
    """Refuse addresses for a server that is not bundled.

    Raises
    ------
    ConfigurationError
        If a setting opens a server that `make up` does not start.
    """
    for name in outside_addresses(settings):
        server = BundledServer.MOSQUITTO
        other = "HEADRACE_MQTT_HOST"
        if name == "HEADRACE_KAFKA_LISTEN":
            server, other = BundledServer.KAFKA, "HEADRACE_KAFKA_BOOTSTRAP"
        if server not in bundled:
            msg = (
                f"{name} is for the {server} that `make up` starts, but {other} or "
                f"HEADRACE_OWN_SERVERS names one of your own. Remove {name}, and let your server "
                "listen for other machines itself"
            )
            raise ConfigurationError(msg)


def _digest(certificate: ServerCertificate) -> str:
    return hashlib.sha256(certificate.chain + certificate.key).hexdigest()[:12]


def _replace(folder: Path, files: dict[Path, bytes]) -> None:
    """Write files that only the server's user can read; remove their predecessors."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("server-*"):
        if old not in files:
            old.unlink()
    for path, content in files.items():
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
