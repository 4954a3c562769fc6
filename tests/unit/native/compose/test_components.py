"""The same components, of the same versions, with the same commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from headrace.settings import BundledServer
from native import programs
from native.airflow import init_commands
from tests.support.compose import TOOLS, Compose
from tests.support.installation import PROJECT


def test_servers_are_chosen_by_profiles(compose: Compose) -> None:
    profiles = {
        name: set(service["profiles"])
        for name, service in compose.services.items()
        if "profiles" in service
    }
    assert profiles == {
        **{server.value: {server.value, "fleet"} for server in BundledServer},
        "simulate": {"fleet"},
        "cli": {"cli"},
    }


def test_env_starts_every_server_and_the_fleet(compose: Compose, env_file: Path) -> None:
    (chosen,) = re.findall(r"(?m)^COMPOSE_PROFILES=(.*)$", env_file.read_text())
    everything = {
        name for service in compose.services.values() for name in service.get("profiles", [])
    }
    assert set(chosen.split(",")) == everything - TOOLS


def test_airflow_is_prepared_by_the_same_commands(compose: Compose) -> None:
    config = str(programs.HERE / "config")
    commands = [
        " ".join(("airflow", *command[1:])).replace(config, "docker") for command in init_commands()
    ]
    assert compose.services["airflow-init"]["command"][-1].split(" && ") == commands


def test_images_are_pinned(compose: Compose) -> None:
    ours = {f"headrace-{name}:local" for name in ("workers", "airflow")}
    bases = re.findall(r"(?m)^FROM (\S+)", (PROJECT / "Dockerfile").read_text())
    images = {service["image"] for service in compose.services.values()} - ours
    for image in (*images, *bases):
        _, _, tag = image.partition(":")
        assert re.search(r"\d+\.\d+", tag), f"{image} names no version"


def test_versions_are_those_of_make_up(compose: Compose) -> None:
    image = {name: service["image"] for name, service in compose.services.items()}
    pinned = dict(
        line.split("==")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    pom = (programs.HERE / "kafka" / "pom.xml").read_text()
    influxd = (programs.HERE / "influxd" / "go.mod").read_text()
    maildev = json.loads((programs.HERE / "maildev" / "package.json").read_text())
    kafka_version = re.search(r"<version>([\d.]+)</version>", pom)
    influx_version = re.search(r"influxdb/v2 v([\d.]+)", influxd)
    assert kafka_version is not None
    assert influx_version is not None
    assert image["kafka"] == f"apache/kafka:{kafka_version[1]}"
    assert image["influxdb"] == f"influxdb:{influx_version[1]}"
    assert image["mailbox"] == f"maildev/maildev:{maildev['dependencies']['maildev']}"
    assert image["postgres"].startswith(f"postgres:{programs.POSTGRES_MAJOR}.")
    assert image["mosquitto"].startswith("eclipse-mosquitto:2.")
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert f"FROM apache/airflow:{pinned['apache-airflow']}-python3.11 AS" in dockerfile
