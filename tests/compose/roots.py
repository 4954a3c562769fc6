"""Debian file systems for the private engine: one holds the engine, one is its first image.

Both are made by debootstrap and kept in the cache of the servers' programs, by content.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from headrace.errors import ConfigurationError
from native.programs import Progress, cache_dir, libraries, run_step, unpack_debian

__all__ = ["CERTIFICATES", "Unavailable", "base_archive", "engine_root"]

#: Certificate authorities that the machine trusts; downloads inside containers need them, too.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

#: Debian 12's own engine is version 20.10, which is too old for `start_interval`.
_ENGINE_SUITE = "trixie"
_ENGINE_PACKAGES = ("docker.io", "docker-cli", "iptables", "ca-certificates")
#: The release that the official images of Python, PostgreSQL and Airflow are built on.
_BASE_SUITE = "bookworm"
_BASE_PACKAGES = ("ca-certificates",)


class Unavailable(Exception):  # noqa: N818 - not an error: the tests can't run on this machine
    """No engine can be had here; the message says why."""


def engine_root(progress: Progress) -> Path:
    """Return the folder with a Debian that holds the Docker engine and its client."""
    root = cache_dir() / f"engine-{_key(_ENGINE_SUITE, _ENGINE_PACKAGES)}"
    if not root.exists():
        progress("getting a Docker engine from Debian's packages, which takes a minute, once")
        _bootstrap(_ENGINE_SUITE, _ENGINE_PACKAGES, root, progress)
    return root


def base_archive(progress: Progress) -> Path:
    """Return a tar archive of the Debian on which the stand-in images are built."""
    archive = cache_dir() / f"image-base-{_key(_BASE_SUITE, _BASE_PACKAGES)}.tar"
    if not archive.exists():
        progress("getting a Debian as the base of images, which takes a minute, once")
        folder = archive.with_suffix(".folder")
        partial = archive.with_suffix(".partial")
        _bootstrap(_BASE_SUITE, _BASE_PACKAGES, folder, progress)
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, folder / str(CERTIFICATES).lstrip("/"))
        log = cache_dir() / "log" / "image-base.log"
        run_step(["tar", "--directory", folder, "--create", "--file", partial, "."], log)
        shutil.rmtree(folder)
        partial.rename(archive)
    return archive


def _key(suite: str, packages: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    return f"{suite}-{digest}"


def _bootstrap(suite: str, packages: Sequence[str], root: Path, progress: Progress) -> None:
    """Install a minimal Debian and some packages into a folder."""
    program, environment = _debootstrap(progress)
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command: list[str | Path] = [
        program,
        "--variant=minbase",
        f"--include={','.join(packages)}",
        suite,
        partial,
    ]
    mirror = _mirror()
    run_step(
        [*command, mirror] if mirror else command,
        cache_dir() / "log" / f"debootstrap-{suite}.log",
        env=environment,
    )
    # An earlier call that was interrupted may have left one.
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)


def _debootstrap(progress: Progress) -> tuple[Path, dict[str, str]]:
    """Return debootstrap and its environment: the installed one, or Debian's package, unpacked."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    found = shutil.which("debootstrap", path=path)
    if found:
        return Path(found), {"PATH": path}
    try:
        root = unpack_debian("debootstrap", "usr/sbin/debootstrap", progress)
    except ConfigurationError as exc:
        msg = f"debootstrap can't be obtained: {exc}"
        raise Unavailable(msg) from exc
    return root / "usr/sbin/debootstrap", {
        # Unpacked with it: wget, if the machine has none.
        "PATH": f"{path}:{root / 'usr/bin'}",
        "DEBOOTSTRAP_DIR": str(root / "usr/share/debootstrap"),
        **libraries(root),
    }


def _mirror() -> str | None:
    """Return the Debian mirror that this machine uses, if apt knows one."""
    done = subprocess.run(
        [
            *["apt-get", "indextargets", "--format", "$(REPO_URI)"],
            *["Created-By: Packages", "Origin: Debian", "Label: Debian"],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return next(iter(sorted(set(done.stdout.split()))), None)
