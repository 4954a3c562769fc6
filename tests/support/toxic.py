"""Injects network faults with toxiproxy: hangs, slow responses and broken connections."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import urllib3

from native.programs import cache_dir, digest, exclusively, need, pinned_version
from native.servers import LOOPBACK, Server
from tests.support.processes import Process, free_port

__all__ = ["Toxic", "Toxiproxy"]

_SOURCES = Path(__file__).parent / "toxiproxy"
_MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server"


def _find() -> Path:
    """Return the path of toxiproxy, built from its Go module the first time."""
    version = pinned_version(_SOURCES / "go.mod", r"toxiproxy/v2 v([\d.]+)")
    files = [_SOURCES / "go.mod", _SOURCES / "go.sum"]
    path = cache_dir() / f"toxiproxy-{version}-{digest(files)}"
    with exclusively():
        if not path.exists():
            need("go", "Go 1.24 or newer", "see go.dev")
            env = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
            partial = path.with_suffix(".partial")
            command = ["go", "build", "-o", str(partial), _MODULE]
            subprocess.run(command, cwd=_SOURCES, env=env, check=True)
            partial.rename(path)
    return path


class Toxic:
    """One proxied address, with faults on demand."""

    def __init__(self, proxy: Toxiproxy, name: str, listen: int, to: int) -> None:
        self._proxy = proxy
        self._way = {
            "name": name,
            "listen": f"{LOOPBACK}:{listen}",
            "upstream": f"{LOOPBACK}:{to}",
        }

    def hang(self) -> None:
        """Accept connections but forward nothing in either direction."""
        for stream in ("upstream", "downstream"):
            self._add(f"hang-{stream}", "timeout", stream, timeout=0)

    def slow(self, milliseconds: int, kilobytes_per_second: int) -> None:
        """Delay answers and limit their rate."""
        self._add("latency", "latency", "downstream", latency=milliseconds)
        self._add("bandwidth", "bandwidth", "upstream", rate=kilobytes_per_second)

    def break_off(self, after_bytes: int) -> None:
        """Close open connections, and each new one after this number of bytes of answers."""
        self._lay_anew(enabled=False)
        self._add("limit", "limit_data", "downstream", bytes=after_bytes)
        self._proxy.call("POST", self._path, {"enabled": True})

    def heal(self) -> None:
        """Close open connections and forward everything again."""
        self._lay_anew(enabled=True)

    @property
    def _path(self) -> str:
        return f"/proxies/{self._way['name']}"

    def _lay_anew(self, *, enabled: bool) -> None:
        """Replace the proxied address with a new one.

        Faults are never removed one by one: if a connection closes at that moment, toxiproxy loses
        track of its faults.
        """
        if self._way["name"] in self._proxy.call("GET", "/proxies"):
            self._proxy.call("DELETE", self._path)
        self._proxy.call("POST", "/proxies", {**self._way, "enabled": enabled})

    def _add(self, name: str, kind: str, stream: str, **attributes: int) -> None:
        self._proxy.call(
            "POST",
            f"{self._path}/toxics",
            {"name": name, "type": kind, "stream": stream, "attributes": attributes},
        )


class Toxiproxy:
    """The proxy process, with an address for each server."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        server = Server(
            "toxiproxy",
            (str(_find()), "-host", LOOPBACK, "-port", str(self._port)),
            folder,
            ready=self._answers,
        )
        self.process = Process(server, folder / "toxiproxy.log")

    def way(self, name: str, listen: int, to: int) -> Toxic:
        """Open an address without faults."""
        toxic = Toxic(self, name, listen, to)
        toxic.heal()
        return toxic

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = urllib3.request(
            method,
            f"http://{LOOPBACK}:{self._port}{path}",
            json=body,
            # toxiproxy closes connections after ten idle seconds, perhaps during the next request.
            headers={"Connection": "close"},
            timeout=5,
            retries=False,
        )
        assert response.status < 300, response.data
        return response.json() if response.data else None

    def _answers(self) -> bool:
        try:
            self.call("GET", "/proxies")
        except urllib3.exceptions.HTTPError:
            return False
        return True
