"""Simulates another machine with a network namespace that has its own address."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Namespace", "another_machine"]


@dataclass(frozen=True)
class Namespace:
    """A network namespace.

    Parameters
    ----------
    name
        Its name.
    host, host6
        Addresses of this machine in the namespace.
    """

    name: str
    host: str
    host6: str

    def run(
        self,
        *command: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        seconds: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace to its end."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *map(str, command)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextmanager
    def running(self, *command: str | Path, cwd: Path) -> Iterator[Path]:
        """Run a command in the namespace during the block, with its output in a file."""
        output = cwd / "output"
        with (
            output.open("w") as file,
            subprocess.Popen(
                ["ip", "netns", "exec", self.name, *map(str, command)],
                cwd=cwd,
                stdout=file,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield output
            finally:
                process.kill()


@contextmanager
def another_machine(host_name: str) -> Iterator[Namespace]:
    """Create a namespace in which this machine has a name; remove it afterwards.

    Raises
    ------
    AssertionError
        If this process may not create one, because only root may.
    """
    assert os.geteuid() == 0, "only root can make network namespaces: run this test as root"
    assert shutil.which("ip"), "network namespaces need `ip`: apt-get install iproute2"
    number = os.getpid() % 65_000
    name = f"headrace{number}"
    # Both ends of a virtual cable, in an unused network.
    outside, inside = f"hr{number}o", f"hr{number}i"
    high, low = divmod(number, 254)
    prefix, prefix6 = f"10.{high % 100 + 150}.{low + 1}", f"fd00:{high + 1:x}:{low + 1:x}"
    space = Namespace(name, f"{prefix}.1", f"{prefix6}::1")
    # `ip netns exec` mounts the files in this folder over those in /etc.
    own = Path("/etc/netns") / name
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("address", "add", f"{space.host}/24", "dev", outside)
        _ip("address", "add", f"{space.host6}/64", "dev", outside, "nodad")
        _ip("link", "set", outside, "up")
        for command in (
            ("address", "add", f"{prefix}.2/24", "dev", inside),
            ("address", "add", f"{prefix6}::2/64", "dev", inside, "nodad"),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-netns", name, *command)
        own.mkdir(parents=True)
        (own / "hosts").write_text(f"127.0.0.1 localhost\n{space.host} {host_name}\n")
        yield space
    finally:
        shutil.rmtree(own, ignore_errors=True)
        # This also removes the cable.
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
