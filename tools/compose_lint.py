"""``python -m tools.compose_lint`` checks ``docker-compose.yaml`` with Docker Compose.

Compose's ``config`` needs no Docker engine. Compose is built once from its Go module and cached
with the other programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from headrace.errors import ConfigurationError
from native.dotenv import write_env
from native.programs import (
    Program,
    Progress,
    cache_dir,
    digest,
    exclusively,
    need,
    pinned_version,
    run_step,
)

__all__ = ["check_compose_file", "find_compose"]

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parent
#: The message for users without ``.env``.
_WITHOUT_ENV = "run `make env` first"


def find_compose(progress: Progress) -> Program:
    """Return ``docker-compose`` v2, built from its Go module."""
    sources = [_HERE / "compose" / name for name in ("go.mod", "go.sum", "build.sh")]
    version = pinned_version(_HERE / "compose" / "go.mod", r"docker/compose/v2 v([\d.]+)")
    path = cache_dir() / f"docker-compose-{version}-{digest(sources)}"
    if not path.exists():
        progress(f"building Docker Compose {version}, which takes about three minutes, once")
        need("go", "Go 1.24.9 or newer", "see go.dev")
        run_step([_HERE / "compose" / "build.sh", path], cache_dir() / "log" / "docker-compose.log")
    return Program(path)


def check_compose_file(compose: Program, checkout: Path = _CHECKOUT) -> list[str]:
    """Check ``docker-compose.yaml`` with every profile, and its error without ``.env``.

    Parameters
    ----------
    compose
        Docker Compose.
    checkout
        Folder of the file.

    Returns
    -------
    list
        The profiles.

    Raises
    ------
    ConfigurationError
        If Compose refuses the file or warns about it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The file of `make env`, with unused secrets.
        env_file = folder / "env"
        write_env(env_file)
        profiles = _run(compose, checkout, env_file, "config", "--profiles").stdout.split()
        for chosen in ([], *([profile] for profile in profiles), profiles):
            options = [f"--profile={profile}" for profile in chosen]
            done = _run(compose, checkout, env_file, *options, "config", "--quiet")
            if done.returncode or done.stderr.strip():
                what = f"with the profile {', '.join(chosen)}" if chosen else "with no profile"
                msg = f"docker-compose.yaml is wrong {what}: {done.stderr.strip()}"
                raise ConfigurationError(msg)
        empty = folder / "empty"
        empty.touch()
        done = _run(compose, checkout, empty, "config", "--quiet")
        if done.returncode == 0 or _WITHOUT_ENV not in done.stderr:
            msg = (
                f"docker-compose.yaml without .env must fail and say {_WITHOUT_ENV!r}, "
                f"but Compose says: {done.stderr.strip() or 'nothing'}"
            )
            raise ConfigurationError(msg)
        # Success would be an attempt to reach the missing engine.
        for command in ("down", "ps"):
            done = _run(compose, checkout, empty, command)
            if _WITHOUT_ENV in done.stderr:
                msg = f"docker-compose.yaml lets `docker compose {command}` fail without .env"
                raise ConfigurationError(msg)
    return profiles


def _run(
    compose: Program, checkout: Path, env_file: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run Compose on the checkout's file without other settings."""
    command = [str(compose.path), "--project-directory", str(checkout)]
    return subprocess.run(
        [*command, "--env-file", str(env_file), *arguments],
        cwd=checkout,
        # A separate home folder, so that the user's Docker configuration has no effect.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(env_file.parent),
            "DOCKER_HOST": f"unix://{env_file.parent / 'no-engine.sock'}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def main() -> None:
    """Check the file, print one sentence, and exit with 1 on errors."""
    try:
        with exclusively():
            compose = find_compose(print)
        profiles = check_compose_file(compose)
    except ConfigurationError as exc:
        print(f"headrace: {exc}", file=sys.stderr)
        sys.exit(1)
    print(f"docker-compose.yaml: fine, also with the profiles {', '.join(profiles)}")


if __name__ == "__main__":
    main()
