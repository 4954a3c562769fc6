"""A stock Airflow with its default configuration, into which Headrace is dropped.

It is what an operator has: `pip install` of the wheel, folders copied into ``AIRFLOW_HOME``, and
Connections made in the UI or in the environment. Nothing of ``native/`` takes part.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import urllib3

from native.postgres import postgres
from native.servers import LOOPBACK, Server
from tests.support.airflow import Mailbox
from tests.support.airflow_api import AirflowApi
from tests.support.backbone import Backbone
from tests.support.installation import PROJECT, Installation
from tests.support.processes import Process, free_port, wait_for

__all__ = ["ADMIN", "FAB", "NOBODY", "VIEWER", "StockAirflow"]

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
ADMIN = ("chief", "the-chief-s-password")
VIEWER = ("guest", "the-guest-s-password")
#: Has a login and no permissions.
NOBODY = ("stranger", "the-stranger-s-password")
_ROLES = {ADMIN: "Admin", VIEWER: "Viewer", NOBODY: "Public"}
_PARTS = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}


class StockAirflow:
    """Airflow's four processes, and the installation whose windows it computes.

    Parameters
    ----------
    backbone
        Kafka, InfluxDB and mosquitto.
    folder
        Folder of everything else.
    commands
        Folder of the commands of an environment with Airflow and the wheel.
    own_database
        Whether to use PostgreSQL instead of the default, SQLite.
    env
        Further settings of Airflow and of Headrace.
    """

    def __init__(
        self,
        backbone: Backbone,
        folder: Path,
        commands: Path,
        *,
        own_database: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.backbone, self.folder, self.commands = backbone, folder, commands
        self.home = folder / "airflow-home"
        self.mailbox = Mailbox()
        more = dict(env or {})
        ours = {name: value for name, value in more.items() if name.startswith("HEADRACE_")}
        self.installation = Installation(backbone, folder / "installation", env=ours)
        self.installation.provision()
        self.port = free_port()
        self.environment = {
            **_clean_environment(),
            # What an operator sets for Headrace.
            "HEADRACE_INSTALLED_AT": self.installation.environment["HEADRACE_INSTALLED_AT"],
            "HEADRACE_PROFILE": self.installation.environment["HEADRACE_PROFILE"],
            "HEADRACE_ALERT_TO": "operators@example.org",
            "AIRFLOW_CONN_SMTP_DEFAULT": f"smtp://{LOOPBACK}:{self.mailbox.port}/"
            "?disable_ssl=true&disable_tls=true",
            "AIRFLOW_HOME": str(self.home),
            # The tests share the machine, so no port may be the default one.
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": f"http://localhost:{self.port}",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            # A hundred DAGs that nobody asked for.
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "no_proxy": f"{LOOPBACK},localhost",
            "PATH": f"{commands}:{os.environ['PATH']}",
            **more,
        }
        log = folder / "log"
        self.postgres: Process | None = None
        if own_database:
            port, password = free_port(), "a-password"
            server = postgres(
                backbone.programs.postgres,
                backbone.folder / f"postgres{port}",
                port=port,
                password=password,
            )
            self.postgres = Process(server, log / "postgres.log")
            self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = (
                f"postgresql+psycopg2://airflow:{password}@{LOOPBACK}:{port}/airflow"
            )
        self.processes = {
            name: Process(
                Server(
                    f"stock-{name}",
                    (str(commands / "airflow"), name),
                    self.home,
                    environment=self.environment,
                    ready=lambda part=part: self._is_healthy(part),  # type: ignore[misc]
                ),
                log / f"{name}.log",
                {},
            )
            for name, part in _PARTS.items()
        }
        self.api = self.api_of(ADMIN)

    def api_of(self, login: tuple[str, str]) -> AirflowApi:
        """The REST API for a user."""
        return AirflowApi(self.port, self.installation.name, login)

    def start(self) -> None:
        """Copy the folders, start everything, and switch the DAGs on."""
        self.home.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("dags", "plugins"):
            shutil.copytree(PROJECT / name, self.home / name, ignore=ignored)
        if self.postgres:
            self.postgres.start()
        self.airflow("db", "migrate")
        if self.environment.get("AIRFLOW__CORE__AUTH_MANAGER") == FAB:
            for (name, password), role in _ROLES.items():
                self._create_user(name, password, role)
        for process in self.processes.values():
            process.start(240)
        if "AIRFLOW__CORE__AUTH_MANAGER" not in self.environment:
            # The default auth manager has made up a password for its only user.
            path = self.home / "simple_auth_manager_passwords.json.generated"
            ((name, password),) = json.loads(path.read_text()).items()
            self.api = self.api_of((name, password))
        self._create_connections()
        for dag in ("windows", "reconcile", "quality"):
            dag_id = f"{self.installation.name}_{dag}"
            wait_for(lambda dag_id=dag_id: self._has_dag(dag_id), 180)  # type: ignore[misc]

    def switch_on(self, *dags: str) -> None:
        """Switch DAGs on: Airflow pauses new ones."""
        for dag in dags:
            path = f"/dags/{self.installation.name}_{dag}"
            self.api.request("PATCH", path, {"is_paused": False})

    def airflow(self, *arguments: str) -> str:
        """Run a command of Airflow."""
        done = subprocess.run(
            [str(self.commands / "airflow"), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def page(self, path: str, user: AirflowApi | None = None) -> urllib3.BaseHTTPResponse:
        """Ask for a part of the page, as a user or as nobody."""
        headers = {"Authorization": f"Bearer {user.token()}"} if user else {}
        url = f"http://{LOOPBACK}:{self.port}/headrace/{path}"
        return urllib3.request("GET", url, headers=headers, retries=False, timeout=30)

    def influx_connection(self, token: str) -> dict[str, object]:
        """The Connection to InfluxDB as an operator fills in the form of the UI."""
        settings = self.installation.settings
        return {
            "connection_id": "influxdb_default",
            "conn_type": "generic",
            "host": settings.influx_host,
            "port": settings.influx_port,
            "schema": "http",
            "password": token,
            "extra": json.dumps({"org": settings.influx_org}),
        }

    @property
    def influx_token(self) -> str:
        """The token that `headrace provision` has written for Airflow."""
        return (self.installation.settings.tokens_dir / "airflow.token").read_text().strip()

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            process.stop(60)
        if self.postgres:
            self.postgres.kill()
        self.installation.close()
        self.mailbox.close()

    def _create_user(self, name: str, password: str, role: str) -> None:
        words = {"username": name, "password": password, "role": role}
        words |= {"email": f"{name}@example.org", "firstname": name, "lastname": role}
        self.airflow("users", "create", *(f"--{key}={value}" for key, value in words.items()))

    def _create_connections(self) -> None:
        kafka = {
            "connection_id": "kafka_default",
            "conn_type": "kafka",
            "extra": json.dumps({"bootstrap.servers": f"{LOOPBACK}:{self.backbone.kafka_port}"}),
        }
        for connection in (kafka, self.influx_connection(self.influx_token)):
            self.api.request("POST", "/connections", connection)

    def _has_dag(self, dag_id: str) -> bool:
        errors = self.api.request("GET", "/importErrors")["import_errors"]
        assert errors == []
        path = f"/dags/{quote(dag_id)}"
        return self.api.request("GET", path, expect=(200, 404)).get("dag_id") == dag_id

    def _is_healthy(self, part: str) -> bool:
        url = f"http://{LOOPBACK}:{self.port}/api/v2/monitor/health"
        try:
            response = urllib3.request("GET", url, timeout=5, retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return response.status == 200 and response.json()[part]["status"] == "healthy"


def _clean_environment() -> dict[str, str]:
    """The environment without settings of ours or Airflow's that happen to be there."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEADRACE_", "AIRFLOW", "PYTHON"))
    }
