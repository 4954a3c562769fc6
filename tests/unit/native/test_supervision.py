"""The supervisor restarts changed servers, keeps the others, and stops all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from native.servers import Server
from native.supervision import Supervisor


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    (tmp_path / "log").mkdir()
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.shut_down()


def sleeper(folder: Path, name: str) -> Server:
    """A server that only writes its process id to a file."""
    script = f"echo $$ > {name}.pid; exec sleep 600"
    config = folder / f"{name}.conf"
    config.write_text("port 1")
    return Server(name, ("/bin/sh", "-c", script), folder, files=(config,))


def pid(server: Server) -> int:
    return int((server.folder / f"{server.name}.pid").read_text())


def test_only_changed_servers_are_restarted(supervisor: Supervisor, tmp_path: Path) -> None:
    servers = [sleeper(tmp_path, name) for name in ("same", "file", "variable")]
    supervisor.configure(servers)
    for server in servers:
        supervisor.start(server.name)
    before = [pid(server) for server in servers]
    (tmp_path / "file.conf").write_text("port 2")
    servers[2] = replace(servers[2], environment={"PORT": "2"})
    supervisor.configure(servers)
    assert supervisor.states() == {"same": "RUNNING", "file": "STOPPED", "variable": "STOPPED"}
    for server in servers:
        supervisor.start(server.name)
    after = [pid(server) for server in servers]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, False]


def test_nothing_is_left_running(supervisor: Supervisor, tmp_path: Path) -> None:
    server = sleeper(tmp_path, "one")
    supervisor.configure([server])
    supervisor.start("one")
    assert supervisor.shut_down()
    with pytest.raises(ProcessLookupError):
        os.kill(pid(server), 0)
    assert not supervisor.shut_down()


def test_a_server_that_exits_at_once_is_reported_with_its_output(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    broken = Server("broken", ("/bin/sh", "-c", "echo the port is taken; exit 3"), tmp_path)
    supervisor.configure([broken])
    with pytest.raises(ConfigurationError, match=r"broken ends as soon(.|\n)*the port is taken"):
        supervisor.start("broken")


def test_files_with_secrets_are_private(supervisor: Supervisor, tmp_path: Path) -> None:
    server = replace(sleeper(tmp_path, "one"), environment={"PASSWORD": "over-the-hills"})
    supervisor.configure([server])
    holding = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and "over-the-hills" in path.read_text(errors="replace")
    ]
    assert holding
    assert all(path.stat().st_mode & 0o077 == 0 for path in holding)


def test_servers_stop_in_reverse_order_by_their_signal(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    servers = []
    for name, signal in (("z-server", "INT"), ("a-worker", "TERM"), ("m-device", "TERM")):
        script = f"trap 'echo {name} >> order; exit 0' {signal}; sleep 600 & wait"
        servers.append(Server(name, ("/bin/sh", "-c", script), tmp_path, stop_signal=signal))
    supervisor.configure(servers)
    for server in servers:
        supervisor.start(server.name)
    supervisor.shut_down()
    assert (tmp_path / "order").read_text().split() == ["m-device", "a-worker", "z-server"]
