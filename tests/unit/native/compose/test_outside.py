"""`docker/outside.yaml` opens the same listeners as `make up`, with the same protection."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from headrace.certificates.authority import Authority
from headrace.settings import OutsideSettings, load_settings
from native.outside import broker_lines, kafka_properties
from tests.support.installation import PROJECT

#: Addresses and files are the containers' own.
DIFFERENT = {
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "listener.name.outside.ssl.keystore.location",
}


@pytest.fixture
def overlay() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROJECT / "docker" / "outside.yaml").read_text())
    return content


@pytest.fixture
def native(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """What `make up` configures: lines of mosquitto and properties of Kafka."""
    Authority(tmp_path / "certificates", datetime.now(UTC)).issue(["h"], timedelta(days=1))
    settings = load_settings(
        tmp_path / "none",
        state_dir=str(tmp_path),
        mqtt_login="password",
        mqtt_listen="192.0.2.7:8883",
        mqtt_websocket_listen="192.0.2.7:8884",
        kafka_listen="192.0.2.7:9094",
    )
    lines = broker_lines(settings, tmp_path / "mosquitto")
    return list(lines), kafka_properties(settings, tmp_path / "kafka", port=1, controller_port=2)


def test_the_broker_has_the_same_listeners(
    overlay: dict[str, Any], native: tuple[list[str], dict[str, str]]
) -> None:
    def listeners(text: str) -> list[dict[str, str]]:
        found = []
        for part in text.split("listener ")[1:]:
            port, *lines = part.strip().splitlines()
            options = dict(line.split(" ", 1) for line in lines)
            assert options.pop("certfile").endswith(".crt")
            assert options.pop("keyfile").endswith(".key")
            found.append({"protocol": "mqtt", "port": port.split()[0], **options})
        return found

    inside = listeners(overlay["configs"]["mosquitto-outside"]["content"])
    assert inside == listeners("\n".join(native[0]))
    ports = [port.rpartition(":")[2] for port in overlay["services"]["mosquitto"]["ports"]]
    assert ports == [listener["port"] for listener in inside]


def test_kafka_has_the_same_properties(
    overlay: dict[str, Any], native: tuple[list[str], dict[str, str]]
) -> None:
    given = {
        # The image writes a hyphen as three underscores.
        name.removeprefix("KAFKA_").lower().replace("___", "-").replace("_", "."): value
        for name, value in overlay["services"]["kafka"]["environment"].items()
    }
    assert set(given) == set(native[1])
    assert {name for name, value in native[1].items() if given[name] != value} == DIFFERENT
    for name in ("listeners", "listener.security.protocol.map"):
        assert "OUTSIDE" in given[name]
    assert "OUTSIDE:SASL_SSL" in given["listener.security.protocol.map"].split(",")


def test_variables_of_the_main_file_are_kept(overlay: dict[str, Any]) -> None:
    """Compose replaces variables of the same name, so they are repeated with an addition."""
    main = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
    shared = dotenv_values(PROJECT / "native" / "config" / "kafka.env")
    before = {**shared, **main["services"]["kafka"]["environment"]}
    for name, value in overlay["services"]["kafka"]["environment"].items():
        kept = str(before[name]).split(",") if name in before else []
        assert set(kept) <= set(value.split(",")), name


def test_every_setting_reaches_the_check_of_the_certificate(overlay: dict[str, Any]) -> None:
    names = {f"HEADRACE_{name.upper()}" for name in OutsideSettings.model_fields}
    for service in ("certificates", "cli"):
        assert names <= set(overlay["services"][service]["environment"]), service
    for service in ("mosquitto", "kafka"):
        waits = overlay["services"][service]["depends_on"]["certificates"]
        assert waits == {"condition": "service_completed_successfully"}


def test_nothing_is_published_beyond_loopback_unless_env_says_so(overlay: dict[str, Any]) -> None:
    for service in ("mosquitto", "kafka"):
        for port in overlay["services"][service]["ports"]:
            assert re.fullmatch(r"\$\{HEADRACE_\w+_LISTEN:-127\.0\.0\.1:0\}:\d+", port), port


@pytest.mark.parametrize(
    ("opened", "files", "code"),
    [("", "", 0), ("0.0.0.0:8883", "", 1), ("0.0.0.0:8883", "a.yaml:b.yaml", 0)],
)
def test_addresses_that_the_main_file_alone_would_ignore_are_refused(
    opened: str, files: str, code: int, tmp_path: Path
) -> None:
    main = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
    provision = main["services"]["provision"]
    for name in ("MQTT_LISTEN", "MQTT_WEBSOCKET_LISTEN", "KAFKA_LISTEN"):
        assert f"${{HEADRACE_{name}:-}}" in provision["environment"]["OPENED"]
    # In place of the command itself.
    (tmp_path / "headrace").write_text("#!/bin/sh\n")
    (tmp_path / "headrace").chmod(0o755)
    done = subprocess.run(
        [*provision["entrypoint"], provision["command"][0].replace("$$", "$")],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "OPENED": opened,
            "HEADRACE_STATE_DIR": str(tmp_path),
            # A container does not get what .env does not have.
            **({"COMPOSE_FILE": files} if files else {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("docker/outside.yaml to .env" in done.stdout) == bool(code)
