"""The wheel contains everything for an installation except DAG files and plugins."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.installation import PROJECT
from tests.support.processes import free_port
from tests.support.wheel import build_wheel, new_environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment with the wheel and without the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    return new_environment(folder / "venv", [str(build_wheel(folder))])


def run(command: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.run(
        command, cwd=folder, env={**clean, **env}, capture_output=True, text=True, check=False
    )


def test_flux_files_and_profiles_come_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    script = (
        "import json, sys; from headrace.settings import load_settings; "
        "from headrace.profile import load_profile; settings = load_settings(); "
        "json.dump({'profile': str(settings.profile), 'name': load_profile(settings.profile).name, "
        "'flux': sorted(path.name for path in settings.flux_dir.iterdir()), "
        "'airflow': 'airflow' in sys.modules}, sys.stdout)"
    )
    done = run([str(installed / "python"), "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["profile"]).is_relative_to(installed.parent)
    assert found["name"] == "generators"
    here = sorted(path.name for path in (PROJECT / "include" / "flux").iterdir())
    assert found["flux"] == here
    assert not found["airflow"]
    files = installed.parent.glob("lib/python*/site-packages/headrace/orchestration/page/files/*")
    assert {path.name for path in files} >= {"page.html", "page.js", "page.css", "icon.svg"}


def test_commands_of_the_wheel_work(installed: Path, tmp_path: Path) -> None:
    headrace = str(installed / "headrace")
    assert "token" in run([headrace, "provision", "--help"], tmp_path).stdout.lower()
    servers = ("MQTT", "INFLUX", "BRIDGE_METRICS", "SINK_METRICS", "AIRFLOW")
    nobody = {f"HEADRACE_{name}_PORT": str(free_port()) for name in servers}
    nobody["HEADRACE_KAFKA_BOOTSTRAP"] = f"127.0.0.1:{free_port()}"
    done = run([headrace, "status"], tmp_path, **nobody)
    # No server runs, and the command reports that.
    assert done.returncode == 1
    assert "Kafka" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_checkout_and_a_wheel_find_the_same_files() -> None:
    package = PROJECT / "include" / "headrace"
    for name in ("flux", "profiles"):
        assert (package / name).resolve() == PROJECT / "include" / name
