"""Builds a wheel of the checkout and environments for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.installation import PROJECT

__all__ = ["build_wheel", "new_environment"]

_UV = str(Path(sys.executable).parent / "uv")
#: Source files of a wheel.
_SOURCES = ("pyproject.toml", "README.md", "LICENSE")


def build_wheel(folder: Path) -> Path:
    """Build a wheel from a copy, so that the build changes nothing in the checkout."""
    copy = folder / "checkout"
    copy.mkdir(parents=True)
    for name in _SOURCES:
        shutil.copy(PROJECT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "include", copy / "include", symlinks=True, ignore=ignored)
    _uv("build", "--wheel", "--out-dir", str(folder / "dist"), str(copy))
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def new_environment(folder: Path, packages: Iterable[str], *, without: Iterable[str] = ()) -> Path:
    """Create a virtual environment with the versions of ``constraints.txt``.

    Parameters
    ----------
    folder
        The environment.
    packages
        Packages to install.
    without
        Packages without a version constraint.

    Returns
    -------
    Path
        Folder of its commands.
    """
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = folder.parent / f"{folder.name}-constraints.txt"
    kept = [line for line in lines if line.partition("==")[0] not in set(without)]
    constraints.write_text("\n".join(kept))
    _uv("venv", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    _uv("pip", "install", "--python", str(python), "--constraint", str(constraints), *packages)
    return folder / "bin"


def _uv(*arguments: str) -> None:
    done = subprocess.run([_UV, "--quiet", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
