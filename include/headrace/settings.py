"""The settings, one frozen object from the environment (``HEADRACE_*``) and ``.env``.

It is created in ``main()`` or in a task, never at import. `headrace.server_settings` and
`headrace.worker_settings` define the single settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from dotenv.parser import parse_stream
from pydantic import BaseModel, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from headrace.checks.addresses import url_host
from headrace.checks.explain import did_you_mean, explain
from headrace.errors import ConfigurationError
from headrace.server_settings import (
    AirflowSettings,
    EmailSettings,
    InfluxSettings,
    KafkaSettings,
    LocalSettings,
    MqttSettings,
    OutsideSettings,
)
from headrace.setting_choices import (
    BundledServer,
    KafkaProtocol,
    LogFormat,
    MqttLogin,
    SmtpSecurity,
)
from headrace.setting_rules import contradictions
from headrace.worker_settings import (
    BridgeSettings,
    InstallationSettings,
    SinkSettings,
    WindowSettings,
    WorkerSettings,
)

__all__ = [
    "ENV_PREFIX",
    "GROUPS",
    "SECRETS",
    "BundledServer",
    "KafkaProtocol",
    "LogFormat",
    "MqttLogin",
    "Settings",
    "SmtpSecurity",
    "load_settings",
]

ENV_PREFIX = "HEADRACE_"
#: Addresses to listen on that are not usable as a destination.
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104


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
    OutsideSettings,
    BaseSettings,
):
    """All settings of an installation."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file_encoding="utf-8",
        frozen=True,
        extra="ignore",
        # An empty setting in .env counts as not set.
        env_ignore_empty=True,
    )

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        found = list(contradictions(self))
        if found:
            raise ValueError("; ".join(found))
        return self

    @property
    def influx_url(self) -> str:
        """URL of InfluxDB."""
        scheme = "https" if self.influx_tls else "http"
        return f"{scheme}://{url_host(self.influx_host)}:{self.influx_port}"

    @property
    def bridge_url(self) -> str:
        """URL of the bridge's metrics and health."""
        return f"http://{url_host(_reachable(self.bridge_host))}:{self.bridge_metrics_port}"

    @property
    def sink_url(self) -> str:
        """URL of the sink's metrics and health."""
        return f"http://{url_host(_reachable(self.sink_host))}:{self.sink_metrics_port}"

    @property
    def local_airflow_url(self) -> str:
        """URL at which processes on this machine reach Airflow."""
        return f"http://{url_host(_reachable(self.airflow_host))}:{self.airflow_port}"

    @property
    def public_airflow_url(self) -> str:
        """URL of Airflow's UI for links, without a slash at the end."""
        return (self.airflow_url or self.local_airflow_url).rstrip("/")

    @property
    def tokens_dir(self) -> Path:
        """Folder of the token files that `headrace provision` creates."""
        return self.state_dir / "tokens"

    @property
    def logins_dir(self) -> Path:
        """Folder of the local broker's logins and access rules."""
        return self.state_dir / "mqtt"

    @property
    def certificates_dir(self) -> Path:
        """Folder of the CA and the server certificate that `headrace certificate` makes."""
        return self.state_dir / "certificates"

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


#: The settings by group, in the order of ``docs/reference/settings.md``.
GROUPS = tuple(
    base
    for base in Settings.__bases__
    if issubclass(base, BaseModel) and not issubclass(base, BaseSettings)
)

#: Settings that can also be read from a file, named in ``<NAME>_FILE``.
SECRETS = tuple(
    name
    for name, field in Settings.model_fields.items()
    if field.annotation in (SecretStr, SecretStr | None)
)


def load_settings(env_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings from the environment and from ``.env`` in the current folder.

    Parameters
    ----------
    env_file
        Another file instead of ``.env``. The environment has priority over the file.
    **overrides
        Settings by lower-case name, with priority over everything else.

    Raises
    ------
    ConfigurationError
        If a setting is wrong or unknown. The message names it and never contains the value of a
        secret.
    """
    if env_file is None:
        env_file = Path(".env")
    given = _names_given(env_file)
    _refuse_unknown([*given, *(f"{ENV_PREFIX}{name.upper()}" for name in overrides)])
    secrets = _secrets_from_files(given)
    try:
        return Settings(_env_file=env_file, **{**secrets, **overrides})
    except ValidationError as exc:
        problems = explain(exc, Settings, _variable, secret=SECRETS)
        raise ConfigurationError(problems) from None


def _variable(path: Iterable[str]) -> str:
    return f"{ENV_PREFIX}{next(iter(path)).upper()}"


def _names_given(env_file: Path) -> dict[str, str]:
    """Return all ``HEADRACE_*`` variables with a value."""
    try:
        _refuse_odd_lines(env_file)
        in_file = DotEnvSettingsSource(Settings, env_file=env_file).env_vars
    except OSError as exc:
        msg = f"{env_file} can't be read: {exc.strerror}"
        raise ConfigurationError(msg) from exc
    except UnicodeDecodeError as exc:
        msg = f"{env_file} can't be read: it is not UTF-8"
        raise ConfigurationError(msg) from exc
    given = {name.upper(): value for name, value in in_file.items() if value}
    given.update({name.upper(): value for name, value in os.environ.items() if value})
    return {name: value for name, value in given.items() if name.startswith(ENV_PREFIX)}


def _refuse_odd_lines(env_file: Path) -> None:
    """Refuse lines that are not settings, which the parser of ``.env`` ignores."""
    if not env_file.is_file():
        return
    with env_file.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error:
                msg = f"{env_file}, line {binding.original.line}: write NAME=value, or a comment"
                raise ConfigurationError(msg)


def _refuse_unknown(names: Iterable[str]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{ENV_PREFIX}{name.upper()}_FILE" for name in SECRETS}
    for name in sorted(set(names) - known):
        hint = did_you_mean(name, sorted(known), "docs/reference/settings.md lists all settings")
        msg = f"{name} is not a setting: {hint}"
        raise ConfigurationError(msg)


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a local server on all addresses."""
    return "127.0.0.1" if host in _WILDCARDS else host


def _secrets_from_files(given: dict[str, str]) -> dict[str, SecretStr]:
    secrets = {}
    for name in SECRETS:
        variable = f"{ENV_PREFIX}{name.upper()}_FILE"
        if variable not in given:
            continue
        try:
            text = Path(given[variable]).read_text(encoding="utf-8").strip()
        except OSError as exc:
            msg = f"{variable}: {given[variable]} can't be read: {exc.strerror}"
            raise ConfigurationError(msg) from exc
        except UnicodeDecodeError as exc:
            msg = f"{variable}: {given[variable]} can't be read: it is not UTF-8"
            raise ConfigurationError(msg) from exc
        if not text:
            msg = f"{variable}: {given[variable]} is empty"
            raise ConfigurationError(msg)
        secrets[name] = SecretStr(text)
    return secrets
