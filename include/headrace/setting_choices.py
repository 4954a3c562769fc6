"""Settings with a fixed set of values."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "BundledServer",
    "KafkaProtocol",
    "LogFormat",
    "LogLevel",
    "MqttLogin",
    "SaslMechanism",
    "SmtpSecurity",
]


class MqttLogin(StrEnum):
    """Who may connect to the local broker."""

    ANONYMOUS = "anonymous"
    PASSWORD = "password"  # noqa: S105 - the name of a mode, not a password


class KafkaProtocol(StrEnum):
    """Protocol of the connections to Kafka."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(StrEnum):
    """SASL mechanism of a Kafka login."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class SmtpSecurity(StrEnum):
    """Protection of the connection to the mail server."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class BundledServer(StrEnum):
    """A server that `make up` can start."""

    MOSQUITTO = "mosquitto"
    KAFKA = "kafka"
    INFLUXDB = "influxdb"
    POSTGRES = "postgres"
    MAILBOX = "mailbox"


class LogLevel(StrEnum):
    """Lowest level of written log lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Format of log lines."""

    CONSOLE = "console"
    JSON = "json"
