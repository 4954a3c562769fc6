"""Settings for access from other machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.checks.addresses import endpoints, is_everywhere
from headrace.setting_choices import MqttLogin

if TYPE_CHECKING:
    from headrace.settings import Settings

__all__ = [
    "broker_is_outside",
    "kafka_advertised",
    "outside_addresses",
    "outside_contradictions",
]


def outside_contradictions(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that removes protection or has no effect."""
    for check in (_login_problem, _port_problem, _missing_problem):
        problem = check(settings)
        if problem is not None:
            yield problem


def broker_is_outside(settings: Settings) -> bool:
    """Return whether the bundled broker has further addresses."""
    return bool(settings.mqtt_listen or settings.mqtt_websocket_listen)


def kafka_advertised(settings: Settings) -> str | None:
    """Return the address that consumers on other machines use; `None` if they have none."""
    return settings.kafka_advertised or settings.kafka_listen


def outside_addresses(settings: Settings) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return the hosts and ports of each setting that opens a server to other machines."""
    given = {
        "HEADRACE_MQTT_LISTEN": settings.mqtt_listen,
        "HEADRACE_MQTT_WEBSOCKET_LISTEN": settings.mqtt_websocket_listen,
        "HEADRACE_KAFKA_LISTEN": settings.kafka_listen,
    }
    return {name: endpoints(value) for name, value in given.items() if value}


def _login_problem(settings: Settings) -> str | None:
    if not broker_is_outside(settings) or settings.mqtt_login is MqttLogin.PASSWORD:
        return None
    name = "HEADRACE_MQTT_LISTEN" if settings.mqtt_listen else "HEADRACE_MQTT_WEBSOCKET_LISTEN"
    return (
        f"{name} opens the broker to other machines, and HEADRACE_MQTT_LOGIN is "
        f"{settings.mqtt_login}, so anyone could publish. Set HEADRACE_MQTT_LOGIN=password"
    )


def _port_problem(settings: Settings) -> str | None:
    """Refuse a port of a plain-text listener or of two listeners."""
    kafka_ports = {port for _, port in endpoints(settings.kafka_bootstrap)}
    plain = {
        **dict.fromkeys(kafka_ports, "HEADRACE_KAFKA_BOOTSTRAP"),
        settings.kafka_port: "HEADRACE_KAFKA_PORT",
        settings.kafka_controller_port: "HEADRACE_KAFKA_CONTROLLER_PORT",
        settings.mqtt_port: "HEADRACE_MQTT_PORT",
    }
    taken: dict[int, str] = {}
    for name, addresses in outside_addresses(settings).items():
        for _, port in addresses:
            if port in plain:
                return (
                    f"{name}: port {port} is the one of {plain[port]}, which is plain text and "
                    "stays on loopback. Write another port; this one is for TLS only"
                )
            if taken.setdefault(port, name) != name:
                return f"{name}: port {port} is also in {taken[port]}. Write another port"
    return None


def _missing_problem(settings: Settings) -> str | None:
    if settings.kafka_advertised and not settings.kafka_listen:
        return (
            "HEADRACE_KAFKA_ADVERTISED has no effect without HEADRACE_KAFKA_LISTEN. Set that to "
            "the address that Kafka is to listen on, such as 0.0.0.0:9094"
        )
    if settings.kafka_listen and not settings.kafka_advertised:
        ((host, port),) = endpoints(settings.kafka_listen)
        if is_everywhere(host):
            return (
                f"HEADRACE_KAFKA_LISTEN: no consumer can connect to {host}. Set "
                "HEADRACE_KAFKA_ADVERTISED to the host name and port that consumers use, such as "
                f"kafka.example.com:{port}"
            )
    return None
