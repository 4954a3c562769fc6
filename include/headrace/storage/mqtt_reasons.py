"""Converts the MQTT broker's reason codes to errors with the next step."""

from __future__ import annotations

from paho.mqtt.client import MQTTErrorCode

from headrace.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConnectionClosedError,
    HeadraceError,
    ServerUnavailableError,
    SessionTakenOverError,
)

__all__ = ["connection_ended", "connection_refused", "lost", "subscription_refused"]

_LOGIN = "Check HEADRACE_MQTT_USERNAME and HEADRACE_MQTT_PASSWORD"
_ADDRESS = "Set HEADRACE_MQTT_HOST and HEADRACE_MQTT_PORT to the broker that serves this client"
_VERSION = (
    "Headrace needs MQTT 5. Enable it in the broker, or set HEADRACE_MQTT_HOST and "
    "HEADRACE_MQTT_PORT to a broker that has it"
)
_FILTERS = "Check HEADRACE_MQTT_TOPICS and the topics of the profile"
_OTHER_CLIENT = (
    "Another client connected with the same client id and now receives the messages. Give each "
    "bridge a HEADRACE_BRIDGE_ID of its own"
)
_RETRIED = "The connection is retried"
_LIMIT = "Raise the broker's limit for this client"
_BUG = "This is a fault of the broker or of Headrace; please report it with the broker's log"

#: Name and next step by reason code.
_REASONS = {
    0x00: ("normal disconnection", _RETRIED),
    0x01: ("unsupported protocol version", _VERSION),
    0x04: ("disconnect with will message", _RETRIED),
    0x80: ("unspecified error", "Look into the broker's log"),
    0x81: ("malformed packet", _BUG),
    0x82: ("protocol error", _BUG),
    0x83: ("implementation specific error", "Look into the broker's log"),
    0x84: ("unsupported protocol version", _VERSION),
    0x85: ("client identifier not valid", "Set HEADRACE_BRIDGE_ID to a name the broker accepts"),
    0x86: ("bad user name or password", _LOGIN),
    0x87: ("not authorized", f"{_LOGIN}, and the broker's access rules"),
    0x88: ("server unavailable", _RETRIED),
    0x89: ("server busy", _RETRIED),
    0x8A: ("banned", "Remove the ban of this client in the broker"),
    0x8B: ("server shutting down", _RETRIED),
    0x8C: ("bad authentication method", "Allow this client to log in with user name and password"),
    0x8D: ("keep alive timeout", "Check the network, or raise HEADRACE_MQTT_KEEPALIVE"),
    0x8E: (
        "session taken over",
        _OTHER_CLIENT,
    ),
    0x8F: ("topic filter invalid", _FILTERS),
    0x90: ("topic name invalid", _BUG),
    0x91: ("packet identifier in use", _RETRIED),
    0x92: ("packet identifier not found", _BUG),
    0x93: ("receive maximum exceeded", _BUG),
    0x94: ("topic alias invalid", _BUG),
    0x95: (
        "packet too large",
        f"{_LIMIT} (maximum packet size), or set fewer HEADRACE_MQTT_TOPICS",
    ),
    0x96: ("message rate too high", _LIMIT),
    0x97: ("quota exceeded", _LIMIT),
    0x98: ("administrative action", "An administrator ended the connection in the broker"),
    0x99: ("payload format invalid", _BUG),
    0x9A: ("retain not supported", "Allow retained messages in the broker"),
    0x9B: ("QoS not supported", "Allow QoS 1 in the broker"),
    0x9C: ("use another server", _ADDRESS),
    0x9D: ("server moved", _ADDRESS),
    0x9E: ("shared subscription not supported", "Use HEADRACE_MQTT_TOPICS without $share"),
    0x9F: ("connection rate exceeded", _RETRIED),
    0xA0: ("maximum connect time", _RETRIED),
    0xA1: ("subscription identifiers not supported", _BUG),
    0xA2: (
        "wildcard subscription not supported",
        "Allow wildcards in the broker, or list the topics in HEADRACE_MQTT_TOPICS",
    ),
}
_TAKEN_OVER = 0x8E
_NOT_AUTHORIZED = 0x87
#: The same reasons in MQTT 3.1.1, for brokers without MQTT 5.
_OLD_REASONS = {0x02: 0x85, 0x03: 0x88, 0x04: 0x86, 0x05: 0x87}
_DENIED = {0x86, _NOT_AUTHORIZED, 0x8A, 0x8C}
_MISCONFIGURED = {0x01, 0x84, 0x85, 0x9D}
_FILTER_REFUSED = {0x8F, 0x9E, 0xA1, 0xA2}

#: Errors of paho at the end of a connection.
_LOST = {
    MQTTErrorCode.MQTT_ERR_CONN_LOST: "the broker or the network closed it",
    MQTTErrorCode.MQTT_ERR_NO_CONN: "the broker or the network closed it",
    MQTTErrorCode.MQTT_ERR_KEEPALIVE: "the broker did not answer a ping in time",
    MQTTErrorCode.MQTT_ERR_PROTOCOL: "the broker sent a malformed packet",
}


def connection_refused(where: str, code: int, server: str | None = None) -> HeadraceError:
    """Return the error for the reason code of a CONNACK.

    Parameters
    ----------
    where
        Address of the broker.
    code
        The reason code.
    server
        Address that the broker names instead of its own.
    """
    code = _OLD_REASONS.get(code, code)
    text = _sentence(f"the MQTT broker at {where} refuses the connection", code, server)
    if code in _DENIED:
        return AccessDeniedError(text)
    if code in _MISCONFIGURED:
        return ConfigurationError(text)
    return ServerUnavailableError(text)


def connection_ended(where: str, code: int, server: str | None = None) -> HeadraceError:
    """Return the error for the reason code of a DISCONNECT, like `connection_refused`."""
    text = _sentence(f"the MQTT broker at {where} ended the connection", code, server)
    return SessionTakenOverError(text) if code == _TAKEN_OVER else ServerUnavailableError(text)


def subscription_refused(where: str, topic_filter: str, code: int) -> HeadraceError:
    """Return the error for a reason code of a SUBACK or UNSUBACK."""
    text = _sentence(f"the MQTT broker at {where} refuses to subscribe {topic_filter}", code)
    if code == _NOT_AUTHORIZED:
        return AccessDeniedError(text)
    if code in _FILTER_REFUSED:
        return ConfigurationError(text)
    return ServerUnavailableError(text)


def lost(where: str, code: MQTTErrorCode) -> HeadraceError:
    """Return the error for a connection that ended without a DISCONNECT."""
    why = _LOST.get(code, code.name)
    text = f"lost the connection to the MQTT broker at {where}: {why}"
    closed = code in (MQTTErrorCode.MQTT_ERR_CONN_LOST, MQTTErrorCode.MQTT_ERR_NO_CONN)
    return ConnectionClosedError(text) if closed else ServerUnavailableError(text)


def _sentence(what: str, code: int, server: str | None = None) -> str:
    name, advice = _REASONS.get(code, ("unknown reason", "Look into the broker's log"))
    text = f"{what}: {name} (0x{code:02X}). {advice}"
    return f"{text}. It names {server[:200]!r}" if server else text
