"""The processes of the local stack in starting order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import urllib3
from dotenv import dotenv_values

from headrace.profile import load_profile
from headrace.profile_rules import check_flux_files
from headrace.settings import ENV_PREFIX, BundledServer, MqttLogin, Settings, load_settings
from headrace.storage.mqtt_logins import provision_logins
from native import programs, servers
from native.airflow import airflow_environment, airflow_servers
from native.bundled import bundled_servers, local_kafka_port, refuse_unlike_bundled
from native.outside import broker_lines, kafka_properties, refuse_servers_of_others
from native.postgres import postgres
from native.programs import Program, Progress
from native.servers import Server

__all__ = ["Programs", "Stack", "find_programs", "load_stack", "login_lines"]

#: Settings that workers do not need. Airflow has those of its database and of the mail server in
#: Connections.
_NOT_FOR_WORKERS = (
    f"{ENV_PREFIX}INFLUX_ADMIN_",
    f"{ENV_PREFIX}AIRFLOW_",
    f"{ENV_PREFIX}POSTGRES_",
    f"{ENV_PREFIX}SMTP_",
)
_BRIDGE_LOGIN = (
    f"{ENV_PREFIX}MQTT_USERNAME",
    f"{ENV_PREFIX}MQTT_PASSWORD",
    f"{ENV_PREFIX}MQTT_PASSWORD_FILE",
)


#: Placeholder for the program of a server that is not started.
_NOT_NEEDED = Program(Path("not-needed"))


@dataclass(frozen=True)
class Programs:
    """The servers' programs."""

    kafka: Program
    influxd: Program
    mosquitto: Program
    postgres: Program
    maildev: Program


def find_programs(
    progress: Progress, needed: Collection[BundledServer] = tuple(BundledServer)
) -> Programs:
    """Find the programs of the needed servers; download or build missing ones."""

    def find(server: BundledServer, look: Callable[[Progress], Program]) -> Program:
        return look(progress) if server in needed else _NOT_NEEDED

    with programs.exclusively():
        return Programs(
            kafka=find(BundledServer.KAFKA, programs.find_kafka),
            influxd=find(BundledServer.INFLUXDB, programs.find_influxd),
            mosquitto=find(BundledServer.MOSQUITTO, programs.find_mosquitto),
            postgres=find(BundledServer.POSTGRES, programs.find_postgres),
            maildev=find(BundledServer.MAILBOX, programs.find_maildev),
        )


@dataclass(frozen=True)
class Stack:
    """The local stack.

    Parameters
    ----------
    settings
        Settings from ``.env``, with an absolute state folder.
    environment
        The same as environment variables of the workers, without unneeded secrets.
    bridge_login
        Additional variables of the bridge.
    airflow_environment
        Environment of Airflow's processes.
    folder
        The state folder.
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

    @property
    def bundled(self) -> frozenset[BundledServer]:
        """The servers that the stack starts."""
        return bundled_servers(self.settings)

    def servers(self, found: Programs) -> list[Server]:
        """Prepare the bundled servers for starting."""
        settings, bundled = self.settings, self.bundled
        password = settings.postgres_password
        chosen = []
        kafka_port = local_kafka_port(settings)
        refuse_servers_of_others(settings, bundled)
        if kafka_port is not None:
            folder, controller_port = self.folder / "kafka", settings.kafka_controller_port
            chosen.append(
                servers.kafka(
                    found.kafka,
                    folder,
                    port=kafka_port,
                    controller_port=controller_port,
                    extra=kafka_properties(
                        settings, folder, port=kafka_port, controller_port=controller_port
                    ),
                )
            )
        if BundledServer.INFLUXDB in bundled:
            folder = self.folder / "influxdb"
            chosen.append(servers.influxdb(found.influxd, folder, port=settings.influx_port))
        if BundledServer.MOSQUITTO in bundled:
            folder = self.folder / "mosquitto"
            chosen.append(
                servers.mosquitto(
                    found.mosquitto,
                    folder,
                    port=settings.mqtt_port,
                    lines=(*login_lines(settings), *broker_lines(settings, folder)),
                )
            )
        if BundledServer.POSTGRES in bundled:
            chosen.append(
                postgres(
                    found.postgres,
                    self.folder / "postgres",
                    port=settings.postgres_port,
                    password=password.get_secret_value() if password else "",
                )
            )
        if BundledServer.MAILBOX in bundled:
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
        # Local workers serve their metrics here, even if `status` reads another host.
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
        """The simulated fleet, if enabled. It never publishes to a broker elsewhere."""
        size = self.settings.fleet_size if BundledServer.MOSQUITTO in self.bundled else 0
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
                # Any answer is enough; health is not checked here.
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


def login_lines(settings: Settings) -> tuple[str, ...]:
    """Return mosquitto's configuration lines for access, and the files they name."""
    if settings.mqtt_login is MqttLogin.ANONYMOUS:
        return ("allow_anonymous true",)
    provision_logins(settings, load_profile(settings.profile))
    # Only mosquitto's own user may read them.
    servers.hand_over(settings.logins_dir, servers.service_user())
    return (
        "allow_anonymous false",
        f"password_file {settings.logins_dir / 'passwords'}",
        f"acl_file {settings.logins_dir / 'rules'}",
        # Otherwise any login could take a bridge's session by using its client id.
        "use_username_as_clientid true",
    )


def load_stack(env_file: Path) -> Stack:
    """Create a stack from ``.env``."""
    settings = load_settings(env_file)
    refuse_unlike_bundled(settings)
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
    for name, path in paths.items():
        variable = f"{ENV_PREFIX}{name.upper()}"
        if not variable.startswith(_NOT_FOR_WORKERS):
            environment[variable] = str(path)
    return Stack(
        settings,
        environment,
        bridge_login,
        {**environment, **airflow_environment(settings, folder / "airflow")},
        folder,
    )
