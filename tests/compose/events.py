"""What happens to the containers of a project, and when."""

from __future__ import annotations

import json
import subprocess
import threading

from tests.compose.stack import PROJECT_LABEL, SERVICE_LABEL, Stack

__all__ = ["Events"]


class Events:
    """Notes what happens to the containers of a project, and when."""

    def __init__(self, stack: Stack) -> None:

        self._found: list[tuple[str, str, int]] = []
        self._process = subprocess.Popen(
            [
                *[*stack.docker.client, "events", "--format", "json", "--filter"],
                *["type=container", "--filter", f"label={PROJECT_LABEL}={stack.project}"],
            ],
            env=stack.docker.whole_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            attributes = event["Actor"]["Attributes"]
            action = event["Action"]
            if action == "die":
                action = f"ended {attributes['exitCode']}"
            self._found.append((attributes[SERVICE_LABEL], action, event["timeNano"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def first(self, service: str, action: str) -> int:
        """When something first happened to a service's container, in nanoseconds."""
        times = [when for name, what, when in self._found if (name, what) == (service, action)]
        assert times, f"{service}: no {action!r} among {[e[:2] for e in self._found]}"
        return min(times)
