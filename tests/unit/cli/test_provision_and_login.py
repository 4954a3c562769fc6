"""`headrace provision` and `headrace login`: options, exit codes, and what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli import app as commands
from headrace.cli import login, provision  # noqa: F401 - they register themselves
from headrace.errors import ConfigurationError, HeadraceError, ServerUnavailableError
from headrace.storage import provision as provisioning
from headrace.storage.findings import Finding

runner = CliRunner()
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def provisioned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of the calls of `provision`."""
    calls: list[dict[str, Any]] = []

    def waits_once(*_: Any, **options: Any) -> dict[str, str]:
        calls.append(options)
        options["not_yet"](ServerUnavailableError("no [red]Kafka yet"))
        return {"topic [red]x": "made"}

    monkeypatch.setattr(provisioning, "provision", waits_once)
    return calls


@pytest.mark.parametrize("arguments", [["provision", "--help"], ["login", "--help"], ["--help"]])
def test_help(arguments: list[str]) -> None:
    done = runner.invoke(commands.app, arguments)
    assert done.exit_code == 0
    assert "Usage:" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["provision", "--wait", "-1"],
        ["provision", "--wait", "nan"],
        ["provision", "--wait", "inf"],
        ["provision", "--wait", "1e12"],
        ["provision", "--wait", "soon"],
        ["provision", "--wiat", "1"],
        ["provision", "more"],
        ["login"],
        ["login", "--remvoe", "g1"],
        ["logn"],
    ],
)
def test_wrong_options_are_refused(arguments: list[str], provisioned: list[dict[str, Any]]) -> None:
    done = runner.invoke(commands.app, arguments)
    assert done.exit_code == 2
    assert not provisioned


def test_provision_shows_what_it_did_as_text(provisioned: list[dict[str, Any]]) -> None:
    done = runner.invoke(commands.app, ["provision", "--wait", "5"])
    assert done.exit_code == 0
    assert "topic [red]x" in done.output
    assert "no [red]Kafka yet" in done.output
    assert provisioned[0]["wait"].total_seconds() == 5


@pytest.mark.parametrize("wait", ["0", "5"])
def test_check_shows_what_to_do_and_ends_with_1(
    wait: str, monkeypatch: pytest.MonkeyPatch, provisioned: list[dict[str, Any]]
) -> None:
    command = "kafka-topics.sh --create --topic [red]x " + "--config long=1 " * 20
    found = [Finding("topic [red]x", "missing", f"{command}\nkafka-acls.sh"), Finding("bucket y")]
    monkeypatch.setattr(provisioning, "check", lambda *_, **__: found)
    done = runner.invoke(commands.app, ["provision", "--check", "--wait", wait])
    assert done.exit_code == 1
    # Each command is on one line, so that it can be copied.
    assert done.output.splitlines()[-2:] == [command, "kafka-acls.sh"]
    assert "topic [red]x" in done.output
    monkeypatch.setattr(provisioning, "check", lambda *_, **__: found[1:])
    done = runner.invoke(commands.app, ["provision", "--check", "--wait", wait])
    assert done.exit_code == 0
    assert "bucket y" in done.output
    assert not provisioned


@pytest.mark.parametrize(
    ("setting", "value"), [("HEADRACE_MQTT_PORT", "x"), ("HEADRACE_PROFILE", "nowhere.yaml")]
)
def test_wrong_settings_are_reported_in_one_sentence(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(setting, value)
    monkeypatch.setattr("sys.argv", ["headrace", "provision"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"headrace: {setting}")


def test_a_login_is_created_listed_and_removed(own_folder: Path) -> None:
    done = runner.invoke(commands.app, ["login", "[red]g1", "g2"])
    assert done.exit_code == 0
    assert "[red]g1" in done.output
    passwords = own_folder / ".state" / "mqtt" / "passwords"
    users = [line.partition(":")[0] for line in passwords.read_text().splitlines()]
    assert users == ["[red]g1", "g2"]
    assert runner.invoke(commands.app, ["login", "--remove", "g2"]).exit_code == 0
    # With its separator: a salt may hold these letters.
    assert "g2:" not in passwords.read_text()


@pytest.mark.parametrize("device", ["", "a/b", "a+", "#", "a:b", "a\nb", "a\x1b[2J", "\ud800"])
def test_an_id_that_can_not_be_a_login_is_refused(device: str, own_folder: Path) -> None:
    done = runner.invoke(commands.app, ["login", "good", device])
    assert isinstance(done.exception, ConfigurationError)
    assert not (own_folder / ".state" / "mqtt" / "passwords").exists()


def test_removing_an_unknown_login_is_refused() -> None:
    done = runner.invoke(commands.app, ["login", "--remove", "nobody"])
    assert isinstance(done.exception, HeadraceError)
    assert "nobody" in str(done.exception)
