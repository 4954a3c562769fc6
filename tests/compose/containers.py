"""The processes inside containers: what they may do, and their end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.compose.images import pinned_images
from tests.compose.stack import Stack

__all__ = ["Process", "kill_processes", "processes"]

_STATUS = 'for file in /proc/[0-9]*/status; do cat "$file" 2> /dev/null && echo; done; true'


@dataclass(frozen=True)
class Process:
    """A process of a container.

    Parameters
    ----------
    name
        Name of its program.
    user
        Number of its user.
    capabilities
        Its effective capabilities; 0 if it has none.
    """

    name: str
    user: int
    capabilities: int


def processes(stack: Stack, service: str) -> list[Process]:
    """Return the main process of a service and its children, without what health checks run."""
    text = stack.exec(service, "sh", "-c", _STATUS).stdout
    found = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.split(":\t", 1) for line in block.splitlines() if ":\t" in line)
        found[values["Pid"].strip()] = values
    kept = [values for pid, values in found.items() if _of_main(pid, found)]
    return [
        Process(values["Name"], int(values["Uid"].split()[0]), int(values["CapEff"], 16))
        for values in kept
    ]


def _of_main(pid: str, found: dict[str, dict[str, str]]) -> bool:
    """Whether a process descends from the container's first one."""
    while pid in found and pid != "1":
        pid = found[pid]["PPid"].strip()
    return pid == "1"


def kill_processes(stack: Stack, services: Iterable[str]) -> None:
    """Kill the main processes of services at once, as the kernel would when memory runs out.

    A container that sees all processes of the engine does it, so that the tests need no
    rights on the machine.
    """
    found = stack.containers()
    pids = [str(found[service]["State"]["Pid"]) for service in services]
    image = pinned_images()["python"]
    stack.docker.run(
        *["run", "--rm", "--privileged", "--pid=host", "--entrypoint", "sh", image],
        *["-c", f"kill -9 {' '.join(pids)}"],
    )
