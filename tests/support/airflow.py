"""Airflow for the tests: four processes, PostgreSQL, a REST client and a mailbox."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from headrace.models.window import parse_time
from native.airflow import airflow_environment, airflow_servers, init_commands
from native.postgres import postgres
from native.servers import LOOPBACK
from tests.support.airflow_api import AirflowApi
from tests.support.backbone import Backbone
from tests.support.installation import Installation
from tests.support.processes import Process, free_port, wait_for

__all__ = ["AirflowStack", "Mailbox"]


class Mailbox:
    """A mail server that keeps its mails for the test."""

    def __init__(self) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []
        self._controller = Controller(self, hostname=LOOPBACK, port=self.port)
        self._controller.start()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        del server, session
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 taken"

    def subjects(self, containing: str = "") -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails if containing in str(mail["Subject"])]

    def close(self) -> None:
        self._controller.stop()


@dataclass
class AirflowStack(AirflowApi):
    """An installation with Airflow.

    Parameters
    ----------
    backbone
        Kafka, InfluxDB and mosquitto.
    folder
        Folder of everything else.
    env
        Further settings, also of Airflow (``AIRFLOW__...``).
    """

    backbone: Backbone
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mailbox = Mailbox()
        self.port = free_port()
        self.postgres_port = free_port()
        # Characters with a meaning in URLs.
        self.postgres_password = "p@ss/word?#%25: word"
        ours = {name: value for name, value in self.env.items() if name.startswith("HEADRACE_")}
        theirs = {name: value for name, value in self.env.items() if name not in ours}
        self.installation = Installation(
            self.backbone,
            self.folder / "installation",
            self.changes,
            {
                "HEADRACE_AIRFLOW_PORT": str(self.port),
                "HEADRACE_AIRFLOW_PASSWORD": "the-password",
                "HEADRACE_AIRFLOW_JWT_SECRET": "a-secret-that-is-long-enough-" * 3,
                "HEADRACE_AIRFLOW_FERNET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
                "HEADRACE_POSTGRES_PORT": str(self.postgres_port),
                "HEADRACE_POSTGRES_PASSWORD": self.postgres_password,
                "HEADRACE_SMTP_PORT": str(self.mailbox.port),
                "HEADRACE_ALERT_TO": "operators@example.org",
                **ours,
            },
        )
        self.installation.provision()
        database = postgres(
            self.backbone.programs.postgres,
            self.backbone.folder / f"postgres{self.postgres_port}",
            port=self.postgres_port,
            password=self.postgres_password,
        )
        log = self.folder / "log"
        self.postgres = Process(database, log / "postgres.log")
        home = self.folder / "airflow"
        settings = self.installation.settings
        self.environment = {
            **self.installation.environment,
            **airflow_environment(settings, home),
            **theirs,
        }
        self.processes = {
            server.name.removeprefix("airflow-"): Process(server, log / f"{server.name}.log", {})
            for server in airflow_servers(settings, home, self.environment)
        }
        super().__init__(self.port, self.installation.name, ("admin", "the-password"))

    def start(self) -> None:
        """Start everything, and wait until the DAGs exist."""
        self.postgres.start()
        for command in init_commands():
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
        for process in self.processes.values():
            process.start(180)
        wait_for(lambda: self._has_dag(f"{self.name}_reconcile"), 120)
        # The reconcile run for earlier windows is due at once. Tests start after it.
        wait_for(self._has_caught_up, 240)

    def _has_dag(self, dag_id: str) -> bool:
        return self.request("GET", f"/dags/{dag_id}", expect=(200, 404)).get("dag_id") == dag_id

    def _has_caught_up(self) -> bool:
        """Return whether all reconcile runs up to the last whole hour have succeeded."""
        runs = self.runs("reconcile", run_type="scheduled")
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        return (
            bool(runs)
            and parse_time(runs[0]["data_interval_end"]) > hour_ago
            and all(run["state"] == "success" for run in runs)
        )

    def close(self) -> None:
        for process in (*reversed(self.processes.values()), self.postgres):
            process.kill()
        self.installation.close()
        self.mailbox.close()
