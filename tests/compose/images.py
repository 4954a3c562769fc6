"""The images that ``docker-compose.yaml`` and ``Dockerfile`` pin: pulled, or stood in for.

A stand-in has the name and the promises of an official image (``images.yaml``) and Debian's
software. It is built only in an engine of the tests' own, where the name can mislead nobody.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from native.programs import (
    Progress,
    exclusively,
    find_influxd,
    find_kafka,
    find_maildev,
)
from tests.compose.docker import Docker
from tests.compose.roots import Unavailable, base_archive
from tests.support.installation import PROJECT

__all__ = ["facts", "pinned_images", "provide_images"]

_HERE = Path(__file__).resolve().parent
_STANDINS = _HERE / "standins"
#: The label of a stand-in, with what it was built from.
_LABEL = "headrace.stand-in"
_DEBIAN = "headrace-stand-in-debian"
_BASE = "headrace-stand-in-base"
_PULL_SECONDS = 600
_BUILD_SECONDS = 900


def facts() -> dict[str, dict[str, Any]]:
    """Return what each official image promises, by its name without the tag."""
    content: dict[str, dict[str, Any]] = yaml.safe_load((_HERE / "images.yaml").read_text())
    return content


def pinned_images() -> dict[str, str]:
    """Return the images of others that the project pins, with their tags, by name."""
    compose = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
    names = [service.get("image", "") for service in compose["services"].values()]
    names += re.findall(r"(?m)^FROM (\S+)", (PROJECT / "Dockerfile").read_text())
    return {name.partition(":")[0]: name for name in names if ":" in name and "$" not in name}


def provide_images(docker: Docker, progress: Progress) -> dict[str, str]:
    """Make the engine have every image.

    Returns
    -------
    dict
        By name, ``official image`` or ``stand-in``.

    Raises
    ------
    Unavailable
        If one can't be pulled into an engine that also serves others.
    """
    missing = {
        name: pinned for name, pinned in pinned_images().items() if not _usable(docker, name)
    }
    for name, pinned in dict(missing).items():
        if not _pull(docker, pinned):
            # What can't be had once is not asked for six more times.
            break
        del missing[name]
    if missing and not docker.private:
        msg = f"{', '.join(missing.values())} can't be pulled"
        raise Unavailable(msg)
    if missing:
        _build(docker, missing, progress)
    return {
        name: "official image" if _label(docker, pinned) is None else "stand-in"
        for name, pinned in pinned_images().items()
    }


def _usable(docker: Docker, name: str) -> bool:
    """Whether the engine has the image; a stand-in must be built from the present files."""
    pinned = pinned_images()[name]
    return docker.has_image(pinned) and _label(docker, pinned) in (None, _digest(name))


def _label(docker: Docker, pinned: str) -> str | None:
    """Return what a stand-in was built from; nothing for another image."""
    (image,) = docker.inspect("image", pinned)
    label: str | None = (image["Config"]["Labels"] or {}).get(_LABEL)
    return label


def _pull(docker: Docker, pinned: str) -> bool:
    try:
        return docker.run("pull", pinned, seconds=_PULL_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _folder(name: str) -> Path:
    return _STANDINS / name.rpartition("/")[2]


def _digest(name: str) -> str:
    """Return a hash of everything that a stand-in is built from, except the servers' programs."""
    content = hashlib.sha256()
    for path in sorted([*_folder(name).iterdir(), *(_STANDINS / "base").iterdir()]):
        content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()[:12]


def _programs() -> Mapping[str, tuple[str, Callable[[Progress], Path]]]:
    """What is copied into a stand-in, and whence: the servers' programs of `make up`."""
    return {
        "apache/kafka": ("libs", lambda progress: find_kafka(progress).path),
        "influxdb": ("influxd", lambda progress: find_influxd(progress).path),
        "maildev/maildev": (
            "node_modules",
            lambda progress: find_maildev(progress).path.parents[2],
        ),
    }


def _build(docker: Docker, missing: Mapping[str, str], progress: Progress) -> None:
    with exclusively():
        archive = base_archive(progress)
    debian = f"{_DEBIAN}:{hashlib.sha256(archive.name.encode()).hexdigest()[:12]}"
    if not docker.has_image(debian):
        docker.run("import", archive, debian, seconds=_BUILD_SECONDS)
    _build_one(docker, _STANDINS / "base", _BASE, f"DEBIAN={debian}")
    for name, pinned in missing.items():
        progress(f"building a stand-in for {pinned}")
        with tempfile.TemporaryDirectory() as context:
            folder = Path(context) / "context"
            shutil.copytree(_folder(name), folder)
            if name in _programs():
                target, find = _programs()[name]
                with exclusively():
                    source = find(progress)
                copy = shutil.copytree if source.is_dir() else shutil.copy2
                copy(source, folder / target)
            _build_one(docker, folder, pinned, f"BASE={_BASE}", f"{_LABEL}={_digest(name)}")


def _build_one(docker: Docker, folder: Path, tag: str, argument: str, label: str = "") -> None:
    labels = ["--label", label] if label else []
    docker.run(
        *["build", "--build-arg", argument, *labels, "--tag", tag, str(folder)],
        seconds=_BUILD_SECONDS,
    )
