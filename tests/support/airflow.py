"""Airflow for the tests: four processes, PostgreSQL, a REST client and a mailbox."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import urllib3
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from headrace.models.window import parse_time, rfc3339
from native.airflow import airflow_environment, airflow_servers, init_commands
from native.postgres import postgres
from native.servers import LOOPBACK
from tests.support.backbone import Backbone
from tests.support.installation import Installation
from tests.support.processes import Process, free_port, wait_for

__all__ = ["AirflowStack", "Mailbox"]

_FINAL = ("success", "failed")


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
class AirflowStack:
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
        self._token: str | None = None

    @property
    def name(self) -> str:
        """Prefix of the ids of the installation's DAGs."""
        return self.installation.name

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

    # The REST API

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        expect: tuple[int, ...] = (200, 201),
        **query: str,
    ) -> dict[str, Any]:
        """Call Airflow's API, as the UI does."""
        if self._token is None:
            answer = urllib3.request(
                "POST",
                f"http://{LOOPBACK}:{self.port}/auth/token",
                json={"username": "admin", "password": "the-password"},
            )
            self._token = answer.json()["access_token"]
        response = urllib3.request(
            method,
            f"http://{LOOPBACK}:{self.port}/api/v2{path}",
            fields=query or None,
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=30,
        )
        assert response.status in expect, f"{method} {path}: {response.status} {response.data!r}"
        return dict(response.json()) if response.data else {}

    def trigger(self, dag: str, **conf: Any) -> str:
        """Start a manual run with parameters; return its id."""
        run = self.request(
            "POST", f"/dags/{self.name}_{dag}/dagRuns", {"logical_date": None, "conf": conf}
        )
        return str(run["dag_run_id"])

    def heal(self, start: datetime, stop: datetime) -> dict[str, Any]:
        """Compute a range with the reconcile DAG, as an operator does in the UI."""
        run = self.trigger("reconcile", start=rfc3339(start), stop=rfc3339(stop))
        return self.wait_for_run("reconcile", run)

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        return self.request("GET", f"/dags/{self.name}_{dag}/dagRuns/{run_id}")

    def runs(self, dag: str, **query: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG, newest first."""
        found = self.request(
            "GET", f"/dags/{self.name}_{dag}/dagRuns", order_by="-run_after", **query
        )
        return list(found["dag_runs"])

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        path = f"/dags/{self.name}_{dag}/dagRuns/{run_id}/taskInstances"
        return list(self.request("GET", path)["task_instances"])

    def wait_for_run(self, dag: str, run_id: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until a run has ended; return it."""
        return wait_for(
            lambda: run if (run := self.run(dag, run_id))["state"] in _FINAL else {}, seconds
        )

    def wait_for_task(
        self, dag: str, run_id: str, task_id: str, states: tuple[str, ...], seconds: float = 120
    ) -> dict[str, Any]:
        """Wait until a task has one of the states."""

        def found() -> dict[str, Any]:
            for task in self.tasks(dag, run_id):
                if task["task_id"] == task_id and task["state"] in states:
                    return task
            return {}

        return wait_for(found, seconds)

    def log(
        self, dag: str, run_id: str, task_id: str, attempt: int = 1, map_index: int = -1
    ) -> str:
        """Return the log of one try of a task. The map index is the number of the piece."""
        path = f"/dags/{self.name}_{dag}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        content = self.request("GET", path, map_index=str(map_index))["content"]
        return "\n".join(str(line) for line in content)

    def next_live_window(self, seconds: float = 150) -> dict[str, Any]:
        """Wait until the next live run has ended."""
        newest = self.runs("windows", limit="1")
        before = newest[0]["dag_run_id"] if newest else ""
        deadline = time.monotonic() + seconds

        def ended() -> dict[str, Any]:
            for run in self.runs("windows", limit="2"):
                if run["dag_run_id"] > before and run["state"] in _FINAL:
                    return run
            return {}

        return wait_for(ended, deadline - time.monotonic())
