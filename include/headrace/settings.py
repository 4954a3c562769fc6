"""One frozen settings object, read from the environment (``HEADRACE_*``).

Made in ``main()`` or inside a task, never at import. The reference in
``docs/settings.md`` is made from the groups and the descriptions below.
"""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FilePath, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from headrace.errors import ConfigurationError
from headrace.profile import Duration

__all__ = [
    "ENV_PREFIX",
    "GROUPS",
    "SECRETS",
    "KafkaProtocol",
    "LogFormat",
    "MqttLogin",
    "Settings",
    "load_settings",
]

ENV_PREFIX = "HEADRACE_"
_INCLUDE = Path(__file__).resolve().parents[1]

Port = Annotated[int, Field(ge=1, le=65535)]


class MqttLogin(StrEnum):
    """Whom the local broker lets in."""

    ANONYMOUS = "anonymous"
    PASSWORD = "password"  # noqa: S105 - the name of a mode, not a password


class KafkaProtocol(StrEnum):
    """How Kafka is spoken to."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class InstallationSettings(BaseModel):
    """The installation."""

    profile: Path = Field(
        _INCLUDE / "profiles" / "generators.yaml", description="The device profile, a YAML file."
    )
    flux_dir: Path = Field(_INCLUDE / "flux", description="Folder of the Flux stages.")
    state_dir: Path = Field(
        Path(".state"), description="Folder of tokens, and of the local stack's data and logs."
    )
    installed_at: datetime = Field(
        datetime(1970, 1, 1, tzinfo=UTC),
        description="When this installation began: no window before it is expected. "
        "`make env` writes it.",
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        "info", description="Least level of log lines: debug, info, warning or error."
    )
    log_format: LogFormat = Field(
        LogFormat.CONSOLE, description="`console` for people, `json` for machines."
    )

    @field_validator("installed_at")
    @classmethod
    def _has_an_offset(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            msg = "must say its offset from UTC, such as 2026-01-31T12:00:00Z"
            raise ValueError(msg)
        return value.astimezone(UTC)


class MqttSettings(BaseModel):
    """MQTT."""

    mqtt_host: str = Field("127.0.0.1", description="Address of the MQTT broker.")
    mqtt_port: Port = Field(1883, description="Port of the MQTT broker.")
    mqtt_username: str | None = Field(None, description="Login of the bridge at the broker.")
    mqtt_password: SecretStr | None = Field(None, description="Password of that login.")
    mqtt_tls: bool = Field(default=False, description="Speak TLS to the broker.")
    mqtt_ca_file: FilePath | None = Field(
        None, description="CA certificates that sign the broker's; the system's if not set."
    )
    mqtt_topics: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Topic filters of this bridge, comma-separated, within the profile's topic; "
        "all of it if not set. How several bridges share a fleet.",
    )
    mqtt_keepalive: Duration = Field(
        timedelta(seconds=45), description="Keep-alive of the bridge's connection."
    )
    mqtt_session_expiry: Duration = Field(
        timedelta(days=30),
        description="How long the broker keeps the bridge's session, and queues for it, while "
        "the bridge is away.",
    )
    mqtt_receive_maximum: Annotated[int, Field(ge=1, le=65535)] = Field(
        1000, description="Receive Maximum of the bridge: unacknowledged readings it asks for."
    )
    mqtt_login: MqttLogin = Field(
        MqttLogin.ANONYMOUS,
        description="The local broker: `anonymous` lets every device in, `password` only those "
        "with a login, each on its own topic.",
    )

    @field_validator("mqtt_topics", mode="before")
    @classmethod
    def _split_topics(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


class KafkaSettings(BaseModel):
    """Kafka."""

    kafka_bootstrap: str = Field(
        "127.0.0.1:9092", description="Addresses of Kafka's brokers, comma-separated."
    )
    kafka_protocol: KafkaProtocol = Field(
        KafkaProtocol.PLAINTEXT,
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.",
    )
    kafka_sasl_mechanism: Annotated[str, Field(pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")] = (
        Field("SCRAM-SHA-512", description="SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")
    )
    kafka_username: str | None = Field(None, description="SASL user.")
    kafka_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_ca_file: FilePath | None = Field(
        None, description="CA certificates that sign the brokers'; the system's if not set."
    )
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = Field(
        6, description="Partitions of each topic, fixed when it is provisioned."
    )
    kafka_replication: Annotated[int, Field(ge=1, le=10)] = Field(
        1, description="Copies of each topic; 3 on a cluster that is to survive a broker."
    )
    kafka_retention: Duration = Field(
        timedelta(days=7), description="How long Kafka keeps raw readings and dead letters."
    )


class InfluxSettings(BaseModel):
    """InfluxDB."""

    influx_host: str = Field("127.0.0.1", description="Address of InfluxDB.")
    influx_port: Port = Field(8086, description="Port of InfluxDB.")
    influx_tls: bool = Field(default=False, description="Speak HTTPS to InfluxDB.")
    influx_org: str = Field("headrace", description="Organisation in InfluxDB.")
    influx_ca_file: FilePath | None = Field(
        None, description="CA certificates that sign InfluxDB's; the system's if not set."
    )
    influx_admin_user: str = Field("admin", description="First user, made by `provision`.")
    influx_admin_password: SecretStr | None = Field(
        None, description="Password of the first user. Only `provision` reads it."
    )
    influx_admin_token: SecretStr | None = Field(
        None, description="Operator token. Only `provision` reads it."
    )
    influx_token: SecretStr | None = Field(
        None,
        description="Token to use instead of the one that `provision` left in the state folder.",
    )
    raw_retention: Duration = Field(
        timedelta(days=30), description="How long InfluxDB keeps raw readings."
    )


class BridgeSettings(BaseModel):
    """Bridge."""

    bridge_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = Field(
        "headrace-bridge",
        description="Name of this bridge: its MQTT client id, so its session. Each bridge needs "
        "one of its own, and keeps it across restarts.",
    )
    bridge_buffer_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        16 << 20, description="What the bridge holds at most while Kafka is slower than the broker."
    )
    bridge_metrics_port: Port = Field(9101, description="Port of the bridge's /metrics, /healthz.")
    max_payload_bytes: Annotated[int, Field(ge=64, le=900_000)] = Field(
        64 * 1024, description="Longest reading that is taken."
    )
    max_time_ahead: Duration = Field(
        timedelta(minutes=5), description="How far ahead of the bridge's clock `time` may lie."
    )
    max_clock_drift: Duration = Field(
        timedelta(seconds=30),
        description="A device whose clock is off by more counts as drifting.",
    )
    max_new_devices: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        10_000,
        description="Number of new device ids the bridge accepts per minute. Readings of further "
        "new ids become dead letters with the reason `too_many_devices`.",
    )
    max_devices: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        200_000,
        description="Number of device ids the bridge accepts in all. Readings of further ids "
        "become dead letters with the reason `too_many_devices`.",
    )


class SinkSettings(BaseModel):
    """Sink."""

    sink_id: str | None = Field(
        None,
        description="Static member name of this sink in the consumer group: with it a restart "
        "takes up its partitions without a rebalance.",
    )
    sink_metrics_port: Port = Field(9102, description="Port of the sink's /metrics and /healthz.")
    sink_batch_readings: Annotated[int, Field(ge=1, le=100_000)] = Field(
        5000, description="Readings in one write to InfluxDB at most."
    )
    sink_linger: Duration = Field(
        timedelta(milliseconds=100), description="How long a reading waits for a batch to fill."
    )
    sink_writes_in_flight: Annotated[int, Field(ge=1, le=16)] = Field(
        3, description="Writes to InfluxDB under way at once."
    )
    sink_buffer_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        1 << 20, description="What the sink fetches ahead from Kafka at most."
    )


class WorkerSettings(BaseModel):
    """Workers."""

    metrics_host: str = Field("127.0.0.1", description="Address that metrics are served on.")
    bridge_host: str = Field("127.0.0.1", description="Where `status` finds the bridge's metrics.")
    sink_host: str = Field("127.0.0.1", description="Where `status` finds the sink's metrics.")
    drain_limit: Duration = Field(
        timedelta(seconds=10),
        description="How long a worker that was told to stop may take to finish what it holds.",
    )


class WindowSettings(BaseModel):
    """Windows."""

    heal_horizon: Duration = Field(
        timedelta(hours=24), description="How far back windows are healed without being asked."
    )
    settle_limit: Duration = Field(
        timedelta(seconds=30),
        description="How long a window waits for the sink before it is computed unsettled.",
    )


class AirflowSettings(BaseModel):
    """Airflow."""

    airflow_host: str = Field("127.0.0.1", description="Address that Airflow's UI is served on.")
    airflow_port: Port = Field(8080, description="Port of Airflow's UI.")
    airflow_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")] | None = Field(
        None,
        description="Public URL of Airflow's UI, used in the links of e-mails. Derived from host "
        "and port if not set.",
    )
    airflow_user: str = Field("admin", description="Login of Airflow's UI.")
    airflow_password: SecretStr | None = Field(None, description="Password of that login.")
    airflow_jwt_secret: SecretStr | None = Field(
        None, description="Secret that Airflow's processes sign their calls with."
    )
    airflow_fernet_key: SecretStr | None = Field(
        None, description="Key that Airflow encrypts stored connections with."
    )
    postgres_port: Port = Field(5433, description="Port of Airflow's metadata database.")
    postgres_password: SecretStr | None = Field(None, description="Its password.")


class EmailSettings(BaseModel):
    """E-mail."""

    alert_to: str = Field("operators@headrace.local", description="Who gets the alert e-mails.")
    alert_from: str = Field("headrace@headrace.local", description="Sender of the e-mails.")
    smtp_host: str = Field("127.0.0.1", description="Address of the mail server.")
    smtp_port: Port = Field(1025, description="Port of the mail server.")
    mailbox_port: Port = Field(1080, description="Port of the local mailbox's page.")


class LocalSettings(BaseModel):
    """The local stack."""

    kafka_controller_port: Port = Field(9093, description="Port of the local Kafka's controller.")
    fleet_size: Annotated[int, Field(ge=0, le=10_000)] = Field(
        50, description="Simulated generators that the local stack starts."
    )


class Settings(
    InstallationSettings,
    MqttSettings,
    KafkaSettings,
    InfluxSettings,
    BridgeSettings,
    SinkSettings,
    WorkerSettings,
    WindowSettings,
    AirflowSettings,
    EmailSettings,
    LocalSettings,
    BaseSettings,
):
    """Everything that can differ between two installations."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file_encoding="utf-8",
        frozen=True,
        extra="ignore",
        # A setting left empty in .env is one that was not set.
        env_ignore_empty=True,
    )

    @property
    def influx_url(self) -> str:
        """Where InfluxDB is, as a URL."""
        return f"{'https' if self.influx_tls else 'http'}://{self.influx_host}:{self.influx_port}"

    @property
    def local_airflow_url(self) -> str:
        """URL at which processes on this machine reach Airflow."""
        wildcard = self.airflow_host in ("0.0.0.0", "::", "[::]")  # noqa: S104
        host = "127.0.0.1" if wildcard else self.airflow_host
        return f"http://{host}:{self.airflow_port}"

    @property
    def public_airflow_url(self) -> str:
        """URL of Airflow's UI for links that people follow, without a slash at the end."""
        return (self.airflow_url or self.local_airflow_url).rstrip("/")

    @property
    def tokens_dir(self) -> Path:
        """Folder of the tokens that `provision` hands out, one file each."""
        return self.state_dir / "tokens"

    @property
    def logins_dir(self) -> Path:
        """Folder of the local broker's logins and access rules."""
        return self.state_dir / "mqtt"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before ``.env``, and nothing else."""
        del settings_cls, file_secret_settings
        return init_settings, env_settings, dotenv_settings


#: The settings by group, in the order of ``docs/settings.md``.
GROUPS = tuple(
    base
    for base in Settings.__bases__
    if issubclass(base, BaseModel) and not issubclass(base, BaseSettings)
)

#: Settings that may also be given as the path of a file, in ``<NAME>_FILE``.
SECRETS = tuple(
    name
    for name, field in Settings.model_fields.items()
    if field.annotation in (SecretStr, SecretStr | None)
)


def load_settings(env_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings from the environment, and from ``.env`` in the current folder.

    Parameters
    ----------
    env_file
        Another file instead of ``.env``. The environment wins over either.
    **overrides
        Settings by their name in lower case, over everything else.

    Raises
    ------
    ConfigurationError
        If a setting is wrong or unknown; the message names it. It never holds a value
        of a secret.
    """
    if env_file is None:
        env_file = Path(".env")
    given = _names_given(env_file)
    _refuse_unknown(given)
    secrets = _secrets_from_files(given)
    try:
        return Settings(_env_file=env_file, **{**secrets, **overrides})
    except ValidationError as exc:
        problems = "; ".join(
            f"{ENV_PREFIX}{str(error['loc'][0]).upper()} {error['msg']}"
            for error in exc.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(problems) from None


def _names_given(env_file: Path) -> dict[str, str]:
    """All ``HEADRACE_*`` names that are set to something, and their values."""
    in_file = DotEnvSettingsSource(Settings, env_file=env_file).env_vars
    given = {name.upper(): value for name, value in in_file.items() if value}
    given.update({name.upper(): value for name, value in os.environ.items() if value})
    return {name: value for name, value in given.items() if name.startswith(ENV_PREFIX)}


def _refuse_unknown(given: dict[str, str]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{ENV_PREFIX}{name.upper()}_FILE" for name in SECRETS}
    for name in sorted(set(given) - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "docs/settings.md lists them all"
        msg = f"{name} is not a setting: {hint}"
        raise ConfigurationError(msg)


def _secrets_from_files(given: dict[str, str]) -> dict[str, SecretStr]:
    secrets = {}
    for name in SECRETS:
        variable = f"{ENV_PREFIX}{name.upper()}_FILE"
        if variable not in given:
            continue
        try:
            secrets[name] = SecretStr(Path(given[variable]).read_text(encoding="utf-8").strip())
        except OSError as exc:
            msg = f"{variable}: {given[variable]} can't be read: {exc.strerror}"
            raise ConfigurationError(msg) from exc
    return secrets
