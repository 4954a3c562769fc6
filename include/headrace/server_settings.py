"""Settings of the servers: default, allowed values and meaning.

``docs/reference/settings.md`` is generated from these groups.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from headrace.checks.addresses import Advertised, Bootstrap, Email, HostName, Listen, Port, WebUrl
from headrace.checks.durations import Lasting
from headrace.checks.topics import TopicFilters
from headrace.checks.values import (
    Choices,
    ExistingFile,
    FernetKey,
    OneOf,
    Secret,
    Switch,
    Text,
    Whole,
)
from headrace.setting_choices import (
    BundledServer,
    KafkaProtocol,
    MqttLogin,
    SaslMechanism,
    SmtpSecurity,
)

__all__ = [
    "AirflowSettings",
    "EmailSettings",
    "InfluxSettings",
    "KafkaSettings",
    "LocalSettings",
    "MqttSettings",
    "OutsideSettings",
]

#: MQTT strings are at most 65,535 bytes of UTF-8.
_MQTT_STRING = Text("1 to 1000 printable characters")
#: PostgreSQL cuts longer names.
_POSTGRES_NAME = Text("1 to 63 printable characters", longest=63)


class MqttSettings(BaseModel):
    """MQTT."""

    mqtt_host: HostName = Field("127.0.0.1", description="Host of the MQTT broker.")
    mqtt_port: Port = Field(1883, description="Port of the MQTT broker.")
    mqtt_username: Annotated[str | None, _MQTT_STRING] = Field(
        None, description="Login of the bridge at the broker."
    )
    mqtt_password: Annotated[SecretStr | None, Secret()] = Field(
        None, description="Password of that login."
    )
    mqtt_tls: Annotated[bool, Switch()] = Field(
        default=False, description="Use TLS for the connection to the broker."
    )
    mqtt_ca_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="CA certificates that sign the broker's certificate; the system's if not set.",
    )
    mqtt_cert_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="Client certificate for the broker, with intermediate ones, in PEM. Only "
        "together with `HEADRACE_MQTT_KEY_FILE` and `HEADRACE_MQTT_TLS`.",
    )
    mqtt_key_file: Annotated[Path | None, ExistingFile()] = Field(
        None, description="Private key of that certificate, in PEM, not encrypted."
    )
    mqtt_topics: Annotated[tuple[str, ...], NoDecode, TopicFilters()] = Field(
        (),
        description="Topic filters of this bridge, comma-separated, within the profile's topic; "
        "all of it if not set. Several bridges share a fleet by filters that do not overlap.",
    )
    mqtt_keepalive: Annotated[timedelta, Lasting("1s", "65535s", whole_seconds=True)] = Field(
        timedelta(seconds=45), description="Keep-alive of the bridge's connection."
    )
    mqtt_session_expiry: Annotated[timedelta, Lasting("1s", "4294967295s", whole_seconds=True)] = (
        Field(
            timedelta(days=30),
            description="How long the broker keeps the bridge's session, and queues readings for "
            "it, while the bridge is disconnected. 4294967295s means without limit.",
        )
    )
    mqtt_receive_maximum: Annotated[int, Whole(1, 65535)] = Field(
        1000,
        description="Receive Maximum of the bridge: how many unacknowledged readings the broker "
        "may send.",
    )
    mqtt_login: Annotated[MqttLogin, OneOf(MqttLogin)] = Field(
        MqttLogin.ANONYMOUS,
        description="The local broker: `anonymous` accepts every device, `password` only those "
        "with a login, each on its own topic.",
    )

    @model_validator(mode="after")
    def _client_certificate_is_complete(self) -> Self:
        if (self.mqtt_cert_file is None) != (self.mqtt_key_file is None):
            given, other = ("CERT", "KEY") if self.mqtt_cert_file else ("KEY", "CERT")
            msg = (
                f"HEADRACE_MQTT_{given}_FILE is set and HEADRACE_MQTT_{other}_FILE is not. Set "
                "both (a client certificate needs its key), or neither"
            )
            raise ValueError(msg)
        if self.mqtt_cert_file is not None and not self.mqtt_tls:
            msg = (
                "HEADRACE_MQTT_CERT_FILE has no effect without TLS. Set HEADRACE_MQTT_TLS=true, or "
                "remove HEADRACE_MQTT_CERT_FILE and HEADRACE_MQTT_KEY_FILE"
            )
            raise ValueError(msg)
        return self


class KafkaSettings(BaseModel):
    """Kafka."""

    kafka_port: Port = Field(9092, description="Port of the bundled Kafka, on loopback.")
    kafka_bootstrap: Annotated[str, Bootstrap()] = Field(
        "127.0.0.1:9092",
        description="Addresses of Kafka's brokers, comma-separated, each with its port; the "
        "bundled Kafka at HEADRACE_KAFKA_PORT if not set.",
    )
    kafka_protocol: Annotated[KafkaProtocol, OneOf(KafkaProtocol)] = Field(
        KafkaProtocol.PLAINTEXT,
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.",
    )
    kafka_sasl_mechanism: Annotated[SaslMechanism, OneOf(SaslMechanism)] = Field(
        SaslMechanism.SCRAM_SHA_512,
        description="SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    )
    kafka_username: Annotated[str | None, Text("1 to 1000 printable characters")] = Field(
        None, description="SASL user."
    )
    kafka_password: Annotated[SecretStr | None, Secret()] = Field(
        None, description="SASL password."
    )
    kafka_ca_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="CA certificates that sign the brokers' certificates; the system's if not set.",
    )
    kafka_cert_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="Client certificate for brokers that require one (mutual TLS), in PEM; needs "
        "`HEADRACE_KAFKA_KEY_FILE`.",
    )
    kafka_key_file: Annotated[Path | None, ExistingFile()] = Field(
        None, description="Key of that certificate, in PEM and without a password."
    )
    kafka_partitions: Annotated[int, Whole(1, 1000)] = Field(
        6, description="Partitions of each topic, fixed when the topic is created."
    )
    kafka_replication: Annotated[int, Whole(1, 10)] = Field(
        1, description="Replicas of each topic; 3 on a cluster that must survive a broker's loss."
    )
    kafka_retention: Annotated[timedelta, Lasting("1m", "36500d")] = Field(
        timedelta(days=7), description="How long Kafka keeps raw readings and dead letters."
    )

    @model_validator(mode="before")
    @classmethod
    def _bootstrap_follows_port(cls, given: object) -> object:
        if isinstance(given, dict) and not given.get("kafka_bootstrap"):
            port = str(given.get("kafka_port", ""))
            # The check of the port refuses all other values.
            if port.isdecimal() and 1 <= int(port[:6]) <= 65535:  # noqa: PLR2004
                return {**given, "kafka_bootstrap": f"127.0.0.1:{port}"}
        return given


class InfluxSettings(BaseModel):
    """InfluxDB."""

    influx_host: HostName = Field("127.0.0.1", description="Host of InfluxDB.")
    influx_port: Port = Field(8086, description="Port of InfluxDB.")
    influx_tls: Annotated[bool, Switch()] = Field(
        default=False, description="Use HTTPS for the connection to InfluxDB."
    )
    influx_org: Annotated[str, Text("1 to 100 printable characters", longest=100)] = Field(
        "headrace", description="Organisation in InfluxDB."
    )
    influx_ca_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="CA certificates that sign InfluxDB's certificate; the system's if not set.",
    )
    influx_admin_user: Annotated[str, Text("1 to 100 printable characters", longest=100)] = Field(
        "admin", description="First user, which `headrace provision` creates."
    )
    # InfluxDB refuses fewer characters; bcrypt takes no more.
    influx_admin_password: Annotated[SecretStr | None, Secret(8, 72)] = Field(
        None, description="Password of the first user. Only `headrace provision` reads it."
    )
    influx_admin_token: Annotated[SecretStr | None, Secret(plain=True)] = Field(
        None,
        description="Operator token, with which `headrace provision` makes the other tokens. "
        "Not needed if `HEADRACE_INFLUX_TOKEN` is set.",
    )
    influx_token: Annotated[SecretStr | None, Secret(plain=True)] = Field(
        None,
        description="One token for provisioning, sink and Airflow, instead of the operator token "
        "and of those that `headrace provision` writes to the state folder. It may belong to an "
        "InfluxDB whose organisation and buckets another person created.",
    )
    # InfluxDB accepts 1h or more; its times are 64-bit nanoseconds.
    raw_retention: Annotated[timedelta, Lasting("1h", "36500d", whole_seconds=True)] = Field(
        timedelta(days=30), description="How long InfluxDB keeps raw readings."
    )


class AirflowSettings(BaseModel):
    """Airflow."""

    airflow_host: HostName = Field("127.0.0.1", description="Address that Airflow's UI listens on.")
    airflow_port: Port = Field(8080, description="Port of Airflow's UI.")
    airflow_url: Annotated[str | None, WebUrl()] = Field(
        None,
        description="Public URL of Airflow's UI, used in the links of e-mails. Derived from host "
        "and port if not set.",
    )
    airflow_user: Annotated[
        str, Text("1 to 64 letters, digits and . _ @ -", r"[A-Za-z0-9._@-]{1,64}")
    ] = Field("admin", description="Login of Airflow's UI.")
    airflow_password: Annotated[SecretStr | None, Secret()] = Field(
        None, description="Password of that login."
    )
    airflow_jwt_secret: Annotated[SecretStr | None, Secret()] = Field(
        None, description="Secret that Airflow's processes sign their calls with."
    )
    airflow_fernet_key: Annotated[SecretStr | None, FernetKey()] = Field(
        None, description="Key that Airflow encrypts stored connections with."
    )
    postgres_host: HostName = Field(
        "127.0.0.1", description="Host of PostgreSQL, which holds Airflow's metadata database."
    )
    postgres_port: Port = Field(
        5433, description="Port of PostgreSQL. Servers of your own usually have 5432."
    )
    postgres_user: Annotated[str, _POSTGRES_NAME] = Field(
        "airflow", description="User of the metadata database, and its owner."
    )
    postgres_password: Annotated[SecretStr | None, Secret()] = Field(
        None, description="Password of that user."
    )
    postgres_database: Annotated[str, _POSTGRES_NAME] = Field(
        "airflow", description="Name of the metadata database."
    )
    postgres_tls: Annotated[bool, Switch()] = Field(
        default=False, description="Use TLS for the connection to PostgreSQL."
    )
    postgres_ca_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="CA certificates that sign PostgreSQL's certificate; the system's if not set.",
    )


class EmailSettings(BaseModel):
    """E-mail."""

    alert_to: Annotated[str, Email(several=True)] = Field(
        "operators@headrace.local",
        description="Recipients of the alert e-mails, comma-separated.",
    )
    alert_from: Annotated[str, Email()] = Field(
        "headrace@headrace.local", description="Sender of the e-mails."
    )
    smtp_host: HostName = Field("127.0.0.1", description="Host of the mail server.")
    smtp_port: Port = Field(
        1025,
        description="Port of the mail server. Relays usually have 587 for `starttls` and 465 for "
        "`tls`.",
    )
    smtp_security: Annotated[SmtpSecurity, OneOf(SmtpSecurity)] = Field(
        SmtpSecurity.NONE,
        description="`none`, `starttls` (begin in plain text, then switch to TLS) or `tls`.",
    )
    smtp_username: Annotated[str | None, Text("1 to 1000 printable characters")] = Field(
        None, description="Login at the mail server."
    )
    smtp_password: Annotated[SecretStr | None, Secret()] = Field(
        None, description="Password of that login."
    )
    smtp_ca_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="CA certificates that sign the mail server's certificate; the system's if not "
        "set.",
    )
    mailbox_port: Port = Field(1080, description="Port of the local mailbox's page.")


class LocalSettings(BaseModel):
    """The local stack."""

    own_servers: Annotated[tuple[str, ...], NoDecode, Choices(BundledServer)] = Field(
        (),
        description="Servers of your own at a loopback address, which `make up` must not start, "
        "comma-separated: mosquitto, kafka, influxdb, postgres, mailbox. A server at any other "
        "address needs no entry.",
    )
    kafka_controller_port: Port = Field(9093, description="Port of the local Kafka's controller.")
    fleet_size: Annotated[int, Whole(0, 10_000)] = Field(
        50, description="Number of simulated generators that the local stack starts."
    )


class OutsideSettings(BaseModel):
    """Access from other machines to the bundled broker and Kafka."""

    mqtt_listen: Annotated[str | None, Listen(several=True)] = Field(
        None,
        description="Further addresses of the bundled broker, comma-separated, such as "
        "`0.0.0.0:8883`. They require TLS and logins (`HEADRACE_MQTT_LOGIN=password`).",
    )
    mqtt_websocket_listen: Annotated[str | None, Listen(several=True)] = Field(
        None, description="The same for MQTT over secure WebSockets, such as `0.0.0.0:8884`."
    )
    kafka_listen: Annotated[str | None, Listen(several=False)] = Field(
        None,
        description="A further address of the bundled Kafka for consumers on other machines, such "
        "as `0.0.0.0:9094`. It requires TLS and a login by SCRAM-SHA-512.",
    )
    kafka_advertised: Annotated[str | None, Advertised()] = Field(
        None,
        description="Host name and port that those consumers use; `HEADRACE_KAFKA_LISTEN` if not "
        "set. Required if that is `0.0.0.0` or `[::]`.",
    )
    server_cert_file: Annotated[Path | None, ExistingFile()] = Field(
        None,
        description="Certificate of the bundled servers, with its chain; the one that "
        "`headrace certificate` made if not set.",
    )
    server_key_file: Annotated[Path | None, ExistingFile()] = Field(
        None, description="Key of that certificate, a PEM file without a password."
    )
