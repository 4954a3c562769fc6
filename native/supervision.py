"""Controls the processes with supervisor, which starts, restarts and stops them."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from headrace.errors import ConfigurationError
from native.servers import Server

__all__ = ["Supervisor"]

_RUNNING = "RUNNING"
_LOG_BYTES = 20 * 1024 * 1024
#: Longest path of a Unix socket, in bytes.
_SOCKET_PATH_LIMIT = 100


class Supervisor:
    """The supervisor of one stack.

    Parameters
    ----------
    folder
        The stack's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "supervisord.conf"
        self._log = folder / "log" / "supervisord.log"
        socket = folder / "supervisor.sock"
        if len(os.fsencode(socket)) > _SOCKET_PATH_LIMIT:
            digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
            socket = Path("/tmp") / f"headrace-{os.getuid()}-{digest}.sock"  # noqa: S108
        self._socket = socket

    def configure(self, servers: Iterable[Server]) -> None:
        """Write the configuration, then start the supervisor or make it apply the changes.

        Raises
        ------
        ConfigurationError
            If supervisor can't work in the folder, or does not start.
        """
        if "%" in str(self._folder):
            msg = (
                f"supervisor can't work in {self._folder}: it expands the percent sign. Set "
                "HEADRACE_STATE_DIR in .env to a folder without one"
            )
            raise ConfigurationError(msg)
        self._config.touch(mode=0o600)
        with self._config.open("w") as file:
            self._parser(servers).write(file)
        if self.running:
            self._reload()
        else:
            self._start()

    @property
    def running(self) -> bool:
        """Return whether the supervisor answers."""
        try:
            with self._rpc() as rpc:
                rpc.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def states(self) -> dict[str, str]:
        """Return the state of every process by name; empty if the supervisor does not run."""
        try:
            with self._rpc() as rpc:
                return {info["name"]: info["statename"] for info in rpc.getAllProcessInfo()}
        except (OSError, xmlrpc.client.Error):
            return {}

    def is_running(self, name: str) -> bool:
        """Return whether a process runs."""
        return self.states().get(name) == _RUNNING

    def start(self, name: str) -> None:
        """Start a process, if it does not run.

        Raises
        ------
        ConfigurationError
            If it ends at once.
        """
        if self.is_running(name):
            return
        try:
            with self._rpc() as rpc:
                rpc.startProcess(name, True)  # noqa: FBT003 - wait until it runs
        except xmlrpc.client.Fault as exc:
            msg = f"{name} ends as soon as it is started, see {self.log_of(name)}{self._end(name)}"
            raise ConfigurationError(msg) from exc

    def stop(self, name: str) -> None:
        """Stop a process, if it runs."""
        if name not in self.states():
            return
        with self._rpc() as rpc, contextlib.suppress(xmlrpc.client.Fault):
            rpc.stopProcess(name, True)  # noqa: FBT003

    def hang_up(self, name: str) -> None:
        """Send SIGHUP to a process, so that it reads its configuration again.

        Raises
        ------
        ConfigurationError
            If it does not run.
        """
        if not self.is_running(name):
            msg = f"{name} does not run: `make up` starts it"
            raise ConfigurationError(msg)
        with self._rpc() as rpc:
            rpc.signalProcess(name, "HUP")

    def shut_down(self) -> bool:
        """Stop every process and the supervisor. Returns whether it ran."""
        if not self.running:
            return False
        with self._rpc() as rpc:
            pid = rpc.getPID()
            rpc.shutdown()
        while _exists(pid):
            time.sleep(0.1)
        return True

    def log_of(self, name: str) -> Path:
        """Return the log file of a process."""
        return self._folder / "log" / f"{name}.log"

    def _end(self, name: str) -> str:
        log = self.log_of(name)
        lines = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
        return ":\n  " + "\n  ".join(lines) if lines else ""

    def _start(self) -> None:
        self._socket.unlink(missing_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"the supervisor does not start: {done.stderr.strip()}, see {self._log}"
            raise ConfigurationError(msg)
        deadline = time.monotonic() + 10
        while not self.running:
            if time.monotonic() > deadline:
                msg = f"the supervisor does not answer, see {self._log}"
                raise ConfigurationError(msg)
            time.sleep(0.1)

    def _reload(self) -> None:
        """Apply changes. Unchanged processes keep running."""
        with self._rpc() as rpc:
            added, changed, removed = rpc.reloadConfig()[0]
            for name in (*changed, *removed):
                rpc.stopProcessGroup(name)
                rpc.removeProcessGroup(name)
            for name in (*added, *changed):
                rpc.addProcessGroup(name)

    def _parser(self, servers: Iterable[Server]) -> configparser.RawConfigParser:
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser["unix_http_server"] = {"file": str(self._socket), "chmod": "0700"}
        parser["supervisord"] = {
            "logfile": str(self._log),
            "pidfile": str(self._folder / "supervisord.pid"),
            "childlogdir": str(self._folder / "log"),
            "directory": str(self._folder),
            # Suppresses a warning about root, because servers run as another user.
            **({"user": "root"} if os.geteuid() == 0 else {}),
        }
        parser["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        for number, server in enumerate(servers, start=1):
            parser[f"program:{server.name}"] = {
                # supervisor compares commands, so a change in the script must change the command.
                "command": shlex.join(("/bin/sh", str(self._script(server)), _digest(server))),
                "directory": str(server.folder),
                # `make up` starts the processes in order. The supervisor restarts them, and
                # stops them in the opposite order, so that clients stop before servers.
                "priority": str(number),
                "autostart": "false",
                "autorestart": "true",
                "startsecs": "1",
                "startretries": "3",
                "stopasgroup": "true",
                "killasgroup": "true",
                "stopsignal": server.stop_signal,
                "stopwaitsecs": str(server.stop_seconds),
                "redirect_stderr": "true",
                "stdout_logfile": str(self.log_of(server.name)),
                "stdout_logfile_maxbytes": str(_LOG_BYTES),
                "stdout_logfile_backups": "2",
                **({"user": server.user} if server.user else {}),
            }
        return parser

    def _script(self, server: Server) -> Path:
        """Write the command and its environment as a script that only its user can read.

        supervisor's format for environments can't represent every value.
        """
        script = self._folder / "run" / f"{server.name}.sh"
        script.parent.mkdir(exist_ok=True)
        script.unlink(missing_ok=True)
        script.touch(mode=0o600)
        exports = [
            f"export {name}={shlex.quote(value)}" for name, value in server.environment.items()
        ]
        lines = ["# Written by `make up`.", *exports, f"exec {shlex.join(server.command)}", ""]
        script.write_text("\n".join(lines))
        if server.user:
            shutil.chown(script, server.user, server.user)
        return script

    @contextlib.contextmanager
    def _rpc(self) -> Iterator[Any]:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            yield proxy.supervisor


def _digest(server: Server) -> str:
    files = [path.read_text() for path in server.files]
    content = repr((server.command, sorted(server.environment.items()), files))
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A zombie process has ended, but its parent has not collected it yet.
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"
