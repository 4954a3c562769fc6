"""A client of Airflow's REST API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import urllib3

from headrace.models.window import rfc3339
from native.servers import LOOPBACK
from tests.support.processes import wait_for

__all__ = ["AirflowApi"]

_FINAL = ("success", "failed")


class AirflowApi:
    """The API of a running Airflow, for one installation.

    Parameters
    ----------
    port
        Port of the api-server.
    name
        Prefix of the ids of the installation's DAGs.
    login
        Name and password of a user.
    """

    def __init__(self, port: int, name: str, login: tuple[str, str]) -> None:
        self.port = port
        self.name = name
        self._login = login
        self._token: str | None = None

    def token(self) -> str:
        """Return a token of the user."""
        if self._token is None:
            name, password = self._login
            answer = urllib3.request(
                "POST",
                f"http://{LOOPBACK}:{self.port}/auth/token",
                json={"username": name, "password": password},
            )
            assert answer.status in (200, 201), answer.data
            self._token = str(answer.json()["access_token"])
        return self._token

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
        response = urllib3.request(
            method,
            f"http://{LOOPBACK}:{self.port}/api/v2{path}",
            fields=query or None,
            json=body,
            headers={"Authorization": f"Bearer {self.token()}"},
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
