"""``make test-compose``: runs the tests of Docker Compose.

They run on the machine's own Docker engine, or else on a private one. If neither can be had,
it says why.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import ConfigurationError
from tests.compose.docker import Docker
from tests.compose.images import provide_images
from tests.compose.machine_engine import machine_engine
from tests.compose.private_engine import private_engine
from tests.compose.roots import Unavailable
from tests.support.installation import PROJECT

#: For the tests without downloads and builds: three times what they take on two quiet cores.
_LIMIT_SECONDS = 30 * 60
#: For the fixtures, to remove what they made.
_CLEAN_UP_SECONDS = 120

_begun = time.monotonic()


def main(arguments: Sequence[str]) -> int:
    """Run the tests; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="headrace-compose-") as name:
        folder = Path(name)
        # Containers read the checkout as other users.
        folder.chmod(0o755)
        try:
            with _engine(folder) as (docker, entering):
                return _run_tests(docker, entering, folder, arguments)
        except Unavailable as exc:
            _say(f"test-compose did not run: {exc}")
            return 0
        except ConfigurationError as exc:
            _say(f"test-compose failed before its first test: {exc}")
            return 1


@contextmanager
def _engine(folder: Path) -> Iterator[tuple[Docker, Sequence[str]]]:
    """The engine, and the command that enters its network."""
    try:
        docker = machine_engine(folder, _say)
        kinds = provide_images(docker, _say)
    except Unavailable as exc:
        _say(f"not with this machine's own Docker engine: {exc}")
    else:
        _say_images("this machine's own Docker engine", kinds)
        yield docker, ()
        return
    with private_engine([folder], _say) as engine:
        _say_images(
            "a private Docker engine, in namespaces of its own",
            provide_images(engine.docker, _say),
        )
        yield engine.docker, engine.entering


def _run_tests(
    docker: Docker, entering: Sequence[str], folder: Path, arguments: Sequence[str]
) -> int:
    command = [*entering, sys.executable, "-m", "pytest", "-x", "-m", "compose", "tests/compose"]
    process = subprocess.Popen(
        [*command, "--capture=no", *arguments],
        cwd=PROJECT,
        env={**os.environ, **docker.as_environment(), "TEST_COMPOSE_FOLDER": str(folder)},
    )
    try:
        code = process.wait(_LIMIT_SECONDS)
    except BaseException as exc:
        # pytest then ends as if interrupted, and its fixtures remove what they made.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_CLEAN_UP_SECONDS)
        finally:
            process.kill()
        if not isinstance(exc, subprocess.TimeoutExpired):
            raise
        _say(f"the tests take longer than {_LIMIT_SECONDS // 60} minutes and were ended")
        return 1
    _say("done" if code == 0 else f"failed ({code})")
    return code


def _say_images(where: str, kinds: dict[str, str]) -> None:
    _say(f"on {where}")
    for kind in sorted(set(kinds.values())):
        _say(f"{kind}: {', '.join(name for name, own in kinds.items() if own == kind)}")


def _say(text: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - _begun:4.0f} s] {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # As for an interrupt: the engine is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
