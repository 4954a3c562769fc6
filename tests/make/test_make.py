"""Every make target runs to its end in a copy of the checkout with its own ports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.settings import ENV_PREFIX, Settings, load_settings
from tests.support.installation import PROJECT
from tests.support.processes import free_port, wait_for

pytestmark = pytest.mark.long

#: Not copied: the virtual environment, data, secrets and caches.
NOT_COPIED = shutil.ignore_patterns(
    ".venv", ".state", ".git", ".env", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis"
)
#: A test without servers, for the targets that run tests.
QUICK_TEST = "tests/unit/models/test_window.py"
MINUTE = 60


class Checkout:
    """A copy of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PROJECT, folder, ignore=NOT_COPIED, symlinks=True)
        # Settings of the test run and pytest's variables must not reach the targets.
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((ENV_PREFIX, "PYTEST_", "AIRFLOW", "MAKE"))
        }
        self.environment["PYTHON"] = self._base_python()

    @staticmethod
    def _base_python() -> str:
        return str(Path(sys.base_prefix) / "bin" / "python3.11")

    def make(self, *arguments: str, minutes: float = 5, answer: str = "", **env: str) -> str:
        """Run make; return its output."""
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env={**self.environment, **env},
            input=answer,
            capture_output=True,
            text=True,
            timeout=minutes * MINUTE,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def use_free_ports(self) -> None:
        """Give the stack its own ports and a small fleet."""
        ports = {
            name: free_port()
            for name in Settings.model_fields
            if name == "port" or name.endswith("_port")
        }
        lines = [f"{ENV_PREFIX}{name.upper()}={port}" for name, port in ports.items()]
        lines.append(f"{ENV_PREFIX}FLEET_SIZE=3")
        with (self.folder / ".env").open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *lines, ""]))


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    # Not in pytest's folder: if root runs the tests, the servers run as another user, who cannot
    # enter it.
    with tempfile.TemporaryDirectory(prefix="headrace-make-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Checkout(folder / "headrace")


@pytest.fixture
def stack(checkout: Checkout) -> Iterator[Checkout]:
    """A copy with an .env. Its processes and data are removed after the test."""
    checkout.make("env")
    checkout.use_free_ports()
    try:
        yield checkout
    finally:
        state = load_settings(checkout.folder / ".env").state_dir
        subprocess.run(["make", "down"], cwd=checkout.folder, env=checkout.environment, check=False)
        shutil.rmtree(state, ignore_errors=True)


@pytest.mark.runs("make:help")
def test_help_names_every_target(checkout: Checkout) -> None:
    text = checkout.make("help")
    for target in ("up", "down", "test", "bench", "help"):
        assert f"make {target} " in text


@pytest.mark.runs("make:env")
def test_env_writes_secrets_once(checkout: Checkout) -> None:
    checkout.make("env")
    path = checkout.folder / ".env"
    written = path.read_text()
    assert "HEADRACE_AIRFLOW_PASSWORD=" in written
    assert path.stat().st_mode & 0o077 == 0
    checkout.make("env")
    assert path.read_text() == written


@pytest.mark.runs(
    "make:up", "make:status", "make:logs", "make:reload-logins", "make:down", "make:reset"
)
def test_the_stack_starts_and_stops_and_its_data_are_deleted(stack: Checkout) -> None:
    stack.make("up", minutes=15)
    assert "missing" in stack.make("status")
    read_logs(stack)
    stack.make("reload-logins")
    assert "stopped" in stack.make("down")
    # `make down` keeps the data.
    state = load_settings(stack.folder / ".env").state_dir
    assert state.exists()
    stack.make("reset", answer="y\n")
    assert not state.exists()


def read_logs(checkout: Checkout) -> None:
    """Follow the logs, which ends only by an interrupt."""
    path = checkout.folder / "followed.txt"
    with path.open("wb") as output:
        process = subprocess.Popen(
            ["make", "logs"],
            cwd=checkout.folder,
            env=checkout.environment,
            stdout=output,
            start_new_session=True,
        )
        try:
            wait_for(lambda: b"==>" in path.read_bytes(), 60)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


@pytest.mark.runs("make:lint", "make:format", "make:docs")
def test_format_and_docs_change_nothing(checkout: Checkout) -> None:
    def content() -> dict[Path, bytes]:
        folders = ("include", "native", "tests", "dags", "plugins", "docs", "benchmarks")
        found = [path for name in folders for path in (checkout.folder / name).rglob("*.*")]
        return {path: path.read_bytes() for path in found if path.suffix in (".py", ".md")}

    before = content()
    checkout.make("format")
    checkout.make("docs")
    assert content() == before
    checkout.make("lint", minutes=15)


@pytest.mark.runs("make:lock")
def test_lock_pins_every_direct_dependency(checkout: Checkout) -> None:
    checkout.make("lock", minutes=10)
    locked = (checkout.folder / "constraints.txt").read_text().lower()
    direct = (checkout.folder / "requirements.txt").read_text().lower().splitlines()
    names = [line.partition("==")[0].partition("[")[0] for line in direct if "==" in line]
    assert names
    for name in names:
        assert f"\n{name}==" in locked


@pytest.mark.runs("make:wheel")
def test_a_wheel_is_built_and_leaves_no_files_beside_it(checkout: Checkout) -> None:
    assert "dist/headrace-" in checkout.make("wheel")
    assert len(list((checkout.folder / "dist").glob("*.whl"))) == 1
    assert not (checkout.folder / "build").exists()


@pytest.mark.runs("make:test", "make:test-all")
@pytest.mark.parametrize("target", ["test", "test-all"])
def test_the_test_targets_run_tests(checkout: Checkout, target: str) -> None:
    assert " passed" in checkout.make(target, minutes=10, PYTEST_ADDOPTS=QUICK_TEST)


@pytest.mark.runs("make:chaos")
def test_chaos_runs_and_counts(checkout: Checkout) -> None:
    assert "1 passed" in checkout.make("chaos", "MINUTES=1", minutes=15)


@pytest.mark.runs("make:bench", "make:bench-quick")
@pytest.mark.parametrize("target", ["bench-quick", "bench"])
def test_the_benchmarks_measure_one_row(checkout: Checkout, target: str) -> None:
    assert "downsample.hour" in checkout.make(target, "ROWS=downsample.hour", minutes=30)
