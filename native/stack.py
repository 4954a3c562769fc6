"""The processes of the local stack, and the order in which they start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import urllib3
from dotenv import dotenv_values

from headrace.checks.addresses import endpoints
from headrace.errors import ConfigurationError
from headrace.profile import load_profile
from headrace.profile_rules import check_flux_files
from headrace.settings import ENV_PREFIX, MqttLogin, Settings, load_settings
from headrace.storage.mqtt_logins import provision_logins
from native import programs, servers
from native.airflow import airflow_environment, airflow_servers
from native.postgres import postgres
from native.programs import Program, Progress
from native.servers import LOOPBACK, Server

__all__ = ["Programs", "Stack", "find_programs", "load_stack", "local_kafka_port", "login_lines"]

#: Addresses of this machine: `make up` starts the servers that have one of these.
_HERE = frozenset({LOOPBACK, "localhost"})
#: Settings that only `provision` and operators need.
_NOT_FOR_WORKERS = (
    f"{ENV_PREFIX}INFLUX_ADMIN_",
    f"{ENV_PREFIX}AIRFLOW_",
    f"{ENV_PREFIX}POSTGRES_PASSWORD",
)
_BRIDGE_LOGIN = (
    f"{ENV_PREFIX}MQTT_USERNAME",
    f"{ENV_PREFIX}MQTT_PASSWORD",
    f"{ENV_PREFIX}MQTT_PASSWORD_FILE",
)


@dataclass(frozen=True)
class Programs:
    """The servers' programs."""

    kafka: Program
    influxd: Program
    mosquitto: Program
    postgres: Program
    maildev: Program


def find_programs(progress: Progress) -> Programs:
    """Find the programs, and download or build missing ones."""
    with programs.exclusively():
        return Programs(
            kafka=programs.find_kafka(progress),
            influxd=programs.find_influxd(progress),
            mosquitto=programs.find_mosquitto(progress),
            postgres=programs.find_postgres(progress),
            maildev=programs.find_maildev(progress),
        )


@dataclass(frozen=True)
class Stack:
    """The local stack.

    Parameters
    ----------
    settings
        What ``.env`` says, with an absolute state folder.
    environment
        The same as an environment for the workers, without what they need not know.
    bridge_login
        What only the bridge needs to know on top.
    airflow_environment
        Environment of Airflow's processes.
    folder
        Where everything is kept.
    """

    settings: Settings
    environment: Mapping[str, str]
    bridge_login: Mapping[str, str]
    airflow_environment: Mapping[str, str]
    folder: Path

    @property
    def log_folder(self) -> Path:
        """Folder of the logs, one file per process."""
        return self.folder / "log"

    def servers(self, found: Programs) -> list[Server]:
        """The servers that ``.env`` does not place elsewhere, ready to be started."""
        settings = self.settings
        password = settings.postgres_password
        chosen = []
        kafka_port = local_kafka_port(settings)
        if kafka_port is not None:
            chosen.append(
                servers.kafka(
                    found.kafka,
                    self.folder / "kafka",
                    port=kafka_port,
                    controller_port=settings.kafka_controller_port,
                )
            )
        if settings.influx_host in _HERE:
            folder = self.folder / "influxdb"
            chosen.append(servers.influxdb(found.influxd, folder, port=settings.influx_port))
        if settings.mqtt_host in _HERE:
            chosen.append(
                servers.mosquitto(
                    found.mosquitto,
                    self.folder / "mosquitto",
                    port=settings.mqtt_port,
                    lines=login_lines(settings),
                )
            )
        chosen.append(
            postgres(
                found.postgres,
                self.folder / "postgres",
                port=settings.postgres_port,
                password=password.get_secret_value() if password else "",
            )
        )
        if settings.smtp_host in _HERE:
            chosen.append(
                servers.mailbox(
                    found.maildev,
                    self.folder / "mailbox",
                    smtp_port=settings.smtp_port,
                    web_port=settings.mailbox_port,
                )
            )
        return chosen

    def workers(self) -> list[Server]:
        """The ingest workers."""
        # Workers of this machine serve their metrics here, even if `status` asks elsewhere.
        host = self.settings.metrics_host
        here = self.settings.model_copy(update={"bridge_host": host, "sink_host": host})
        return [
            self._worker("bridge", url=here.bridge_url, more=self.bridge_login),
            self._worker("sink", url=here.sink_url),
        ]

    def airflow(self) -> list[Server]:
        """Airflow's processes, the api-server first."""
        return airflow_servers(self.settings, self.folder / "airflow", self.airflow_environment)

    def fleet(self) -> list[Server]:
        """The simulated fleet, if wanted. It never publishes to a broker of the user's own."""
        size = self.settings.fleet_size if self.settings.mqtt_host in _HERE else 0
        arguments = ("--generators", str(size), "--offline-chance", "0.002")
        return [self._worker("simulate", *arguments)] if size else []

    def _worker(
        self,
        name: str,
        *arguments: str,
        url: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Server:
        def ready() -> bool:
            if url is None:
                return True
            try:
                # Any answer counts; health is not checked here.
                urllib3.request("GET", f"{url}/healthz", timeout=2, retries=False)
            except urllib3.exceptions.HTTPError:
                return False
            return True

        return Server(
            name,
            (str(Path(sys.executable).parent / "headrace"), name, *arguments),
            self.folder,
            environment={**self.environment, **(more or {})},
            ready=ready,
            # Longer than a worker's drain limit and one more call to InfluxDB.
            stop_seconds=int(self.settings.drain_limit.total_seconds()) + 20,
        )


def local_kafka_port(settings: Settings) -> int | None:
    """Return the port of the stack's Kafka, or `None` if the settings name another one."""
    addresses = endpoints(settings.kafka_bootstrap)
    host, port = addresses[0]
    return port if len(addresses) == 1 and host in _HERE else None


def login_lines(settings: Settings) -> tuple[str, ...]:
    """Return mosquitto's configuration lines for access, and the files they name."""
    if settings.mqtt_login is MqttLogin.ANONYMOUS:
        return ("allow_anonymous true",)
    provision_logins(settings, load_profile(settings.profile))
    return (
        "allow_anonymous false",
        f"password_file {settings.logins_dir / 'passwords'}",
        f"acl_file {settings.logins_dir / 'rules'}",
        # Otherwise any login could take a bridge's session and its queue by using its name.
        "use_username_as_clientid true",
    )


def _refuse_other_loopback(settings: Settings) -> None:
    """Refuse the IPv6 loopback address, because the stack starts no servers there."""
    kafka_hosts = {host for host, _ in endpoints(settings.kafka_bootstrap)}
    given = {
        "MQTT_HOST": {settings.mqtt_host},
        "KAFKA_BOOTSTRAP": kafka_hosts,
        "INFLUX_HOST": {settings.influx_host},
        "SMTP_HOST": {settings.smtp_host},
    }
    for name, hosts in given.items():
        if "::1" in hosts:
            msg = (
                f"{ENV_PREFIX}{name} is ::1, but `make up` starts servers on {LOOPBACK}: write that"
            )
            raise ConfigurationError(msg)


def load_stack(env_file: Path) -> Stack:
    """Read ``.env`` into a stack."""
    settings = load_settings(env_file)
    _refuse_other_loopback(settings)
    folder = settings.state_dir.resolve()
    # The processes run in other folders.
    paths = {name: value.resolve() for name, value in settings if isinstance(value, Path)}
    settings = settings.model_copy(update=paths)
    check_flux_files(load_profile(settings.profile).alarms, settings.flux_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # The servers' user must be able to enter its folders.
    folder.chmod(0o755)
    (folder / "log").mkdir(exist_ok=True)
    given = {name: value for name, value in dotenv_values(env_file).items() if value}
    given = {
        name: str(Path(value).resolve()) if name.endswith("_FILE") else value
        for name, value in given.items()
    }
    bridge_login = {name: given[name] for name in _BRIDGE_LOGIN if name in given}
    environment = {
        name: value
        for name, value in given.items()
        if not name.startswith(_NOT_FOR_WORKERS) and name not in bridge_login
    }
    environment.update({f"{ENV_PREFIX}{name.upper()}": str(path) for name, path in paths.items()})
    return Stack(
        settings,
        environment,
        bridge_login,
        {**environment, **airflow_environment(settings, folder / "airflow")},
        folder,
    )
