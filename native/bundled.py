"""Determines which servers `make up` starts: those at a loopback address, by default."""

from __future__ import annotations

from headrace.checks.addresses import endpoints
from headrace.errors import ConfigurationError
from headrace.settings import ENV_PREFIX, BundledServer, KafkaProtocol, Settings, SmtpSecurity
from native.servers import LOOPBACK

__all__ = ["bundled_servers", "local_kafka_port", "refuse_unlike_bundled"]

#: Addresses of the bundled servers.
_HERE = frozenset({LOOPBACK, "localhost"})
_ADDRESSES = {
    BundledServer.MOSQUITTO: "MQTT_HOST",
    BundledServer.KAFKA: "KAFKA_BOOTSTRAP",
    BundledServer.INFLUXDB: "INFLUX_HOST",
    BundledServer.POSTGRES: "POSTGRES_HOST",
    BundledServer.MAILBOX: "SMTP_HOST",
}


def bundled_servers(settings: Settings) -> frozenset[BundledServer]:
    """Return the servers that `make up` starts."""
    return frozenset(
        server
        for server, name in _ADDRESSES.items()
        if server not in settings.own_servers and _is_here(_hosts(settings, name))
    )


def local_kafka_port(settings: Settings) -> int | None:
    """Return the port of the stack's Kafka, or `None` if the settings name another one."""
    if BundledServer.KAFKA not in bundled_servers(settings):
        return None
    return endpoints(settings.kafka_bootstrap)[0][1]


def refuse_unlike_bundled(settings: Settings) -> None:
    """Refuse settings that the bundled servers can't fulfil.

    Raises
    ------
    ConfigurationError
        If a setting needs another server than the one that would be started.
    """
    _refuse_other_loopback(settings)
    bundled = bundled_servers(settings)
    beyond = {
        BundledServer.MOSQUITTO: {"MQTT_TLS": settings.mqtt_tls},
        BundledServer.KAFKA: {
            "KAFKA_PROTOCOL": settings.kafka_protocol is not KafkaProtocol.PLAINTEXT
        },
        BundledServer.INFLUXDB: {
            "INFLUX_TLS": settings.influx_tls,
            "INFLUX_TOKEN": settings.influx_token is not None,
        },
        BundledServer.POSTGRES: {
            "POSTGRES_TLS": settings.postgres_tls,
            "POSTGRES_USER": settings.postgres_user != "airflow",
            "POSTGRES_DATABASE": settings.postgres_database != "airflow",
        },
        BundledServer.MAILBOX: {
            "SMTP_SECURITY": settings.smtp_security is not SmtpSecurity.NONE,
            "SMTP_USERNAME": settings.smtp_username is not None,
        },
    }
    for server, given in beyond.items():
        for name, is_set in given.items():
            if is_set and server in bundled:
                address = _ADDRESSES[server]
                msg = (
                    f"{ENV_PREFIX}{name} is for a server of your own, but {ENV_PREFIX}{address} "
                    f"is the address of the {server} that `make up` starts. Set "
                    f"{ENV_PREFIX}{address} to your server; if yours has this address, set "
                    f"{ENV_PREFIX}OWN_SERVERS={server}"
                )
                raise ConfigurationError(msg)


def _is_here(hosts: list[str]) -> bool:
    # Several brokers are a cluster, but the stack starts only one broker.
    return len(hosts) == 1 and hosts[0] in _HERE


def _refuse_other_loopback(settings: Settings) -> None:
    """Refuse the IPv6 loopback address, on which the stack starts no servers."""
    for server, name in _ADDRESSES.items():
        if "::1" in _hosts(settings, name) and server not in settings.own_servers:
            msg = (
                f"{ENV_PREFIX}{name} is ::1, but `make up` starts servers on {LOOPBACK}: write "
                f"that. If it is a server of your own, set {ENV_PREFIX}OWN_SERVERS={server}"
            )
            raise ConfigurationError(msg)


def _hosts(settings: Settings, name: str) -> list[str]:
    if name == "KAFKA_BOOTSTRAP":
        return [host for host, _ in endpoints(settings.kafka_bootstrap)]
    return [str(getattr(settings, name.lower()))]
