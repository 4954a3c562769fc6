"""A Docker engine of the tests' own, for machines that have none.

It runs in namespaces of its own, and so do the tests while they use it: published ports are
ports of that network namespace, and when its processes have ended nothing of it remains but
the cached images. slirp4netns connects the namespace to the outside without any change of
the machine's network.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import ConfigurationError
from native.programs import Progress, cache_dir, exclusively, libraries, unpack_debian
from tests.compose.docker import Docker
from tests.compose.roots import Unavailable, engine_root
from tools.compose_lint import find_compose

__all__ = ["PrivateEngine", "private_engine"]

_START = Path(__file__).with_name("start-engine.sh")
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_TUN = Path("/dev/net/tun")
#: Ends a process as soon as this one ends, however that happens.
_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class PrivateEngine:
    """A running engine.

    Parameters
    ----------
    docker
        Its client.
    entering
        A command that runs the command behind it in the engine's network.
    """

    def __init__(self, docker: Docker, entering: Sequence[str]) -> None:
        self.docker = docker
        self.entering = tuple(entering)


@contextmanager
def private_engine(shared: Sequence[Path], progress: Progress) -> Iterator[PrivateEngine]:
    """Start an engine, and stop it in the end.

    Parameters
    ----------
    shared
        Folders that containers may mount.
    progress
        Receives a short description of each step.

    Raises
    ------
    Unavailable
        If this machine can't run one.
    """
    _check_machine()
    with exclusively():
        root = engine_root(progress)
        slirp = _find_slirp(progress)
        compose = find_compose(progress).path
    data = cache_dir() / f"engine-data-{root.name}"
    data.mkdir(exist_ok=True)
    with _alone(data, progress):
        log = (cache_dir() / "log" / "engine.log").open("wb")
        pieces = _Pieces(log.fileno())
        try:
            engine = pieces.start(
                [
                    *["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL"],
                    *["--propagation", "private", str(_START), str(root), str(data)],
                    *map(str, shared),
                ]
            )
            network = f"/proc/{_first_child(engine)}/ns/net"
            pieces.start(
                [
                    *[str(slirp[0]), "--configure", "--mtu=65520", "--disable-host-loopback"],
                    *["--netns-type=path", network, "tap0"],
                ],
                slirp[1],
            )
            docker = Docker(_client(root), _client_environment(data, compose), private=True)
            _wait(lambda: engine.poll() is not None or docker.answers(), _START_SECONDS)
            if engine.poll() is not None or not docker.answers():
                msg = f"the private Docker engine does not start, see {log.name}"
                raise ConfigurationError(msg)
            clear(docker)
            yield PrivateEngine(docker, ("nsenter", f"--net={network}", "--"))
            clear(docker)
        finally:
            pieces.end()
            log.close()


def _check_machine() -> None:
    """Check what can't be installed."""
    if platform.system() != "Linux" or shutil.which("apt-get") is None:
        msg = "a private engine is made of Debian's packages, and this machine is not Debian"
        raise Unavailable(msg)
    if os.geteuid() != 0:
        msg = "a private engine needs root"
        raise Unavailable(msg)
    if not _TUN.exists():
        msg = f"a private engine needs {_TUN} for its network"
        raise Unavailable(msg)
    allowed = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if allowed.returncode:
        msg = f"this machine does not allow namespaces and mounts: {allowed.stderr.strip()}"
        raise Unavailable(msg)


def _find_slirp(progress: Progress) -> tuple[Path, dict[str, str]]:
    found = shutil.which("slirp4netns")
    if found:
        return Path(found), {}
    try:
        root = unpack_debian("slirp4netns", "usr/bin/slirp4netns", progress)
    except ConfigurationError as exc:
        msg = f"slirp4netns can't be obtained: {exc}"
        raise Unavailable(msg) from exc
    return root / "usr/bin/slirp4netns", libraries(root)


@contextmanager
def _alone(data: Path, progress: Progress) -> Iterator[None]:
    """Let one engine at a time use the cached images."""
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another run of these tests on this machine")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Pieces:
    """The processes of the engine; they end in the order in which they were started."""

    def __init__(self, log: int) -> None:
        self._log = log
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*_WITH_US, *command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._running.append(process)
        return process

    def end(self) -> None:
        for process in self._running:
            # `unshare` ignores SIGTERM; the engine is its child.
            for pid in _children(process) or [process.pid]:
                os.kill(pid, signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    if process.poll() is not None:
        return []
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def _first_child(process: subprocess.Popen[bytes]) -> int:
    """Return the process in the new namespaces."""
    _wait(lambda: _children(process) or process.poll() is not None, 10)
    (pid,) = _children(process)
    return pid


def _client(root: Path) -> tuple[str, ...]:
    """The client of the engine's own Debian, with that Debian's libraries."""
    (loader,) = root.glob("lib64/ld-linux-*.so.*") or root.glob("lib/ld-linux-*.so.*")
    folders = sorted({str(path.parent) for path in root.glob("usr/lib/*-linux-gnu/libc.so.6")})
    return (str(loader), "--library-path", ":".join(folders), str(root / "usr/bin/docker"))


def _client_environment(data: Path, compose: Path) -> dict[str, str]:
    """A configuration of the client's own, with Compose as its plugin."""
    plugin = data / "client" / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(compose)
    return {
        "DOCKER_CONFIG": str(data / "client"),
        "DOCKER_HOST": f"unix://{data / 'docker.sock'}",
        # There is no buildx beside it.
        "DOCKER_BUILDKIT": "0",
    }


def clear(docker: Docker) -> None:
    """Remove what an earlier run left, but not its images of the last two days."""
    containers = docker.lines("ps", "--all", "--quiet")
    if containers:
        docker.run("rm", "--force", "--volumes", *containers)
    docker.run("volume", "prune", "--all", "--force")
    docker.run("network", "prune", "--force")
    docker.run("image", "prune", "--force", "--filter", "until=48h")


def _wait(what: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
