"""The profile and the rule in ``docs/connect-a-fleet.md`` are enough for another device."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from headrace.models.window import WindowRange, floor, rfc3339
from tests.support.devices import Publisher
from tests.support.installation import Installation
from tests.support.processes import wait_for

PROJECT = Path(__file__).resolve().parents[2]
WINDOW = timedelta(minutes=5)


def block(language: str) -> str:
    text = (PROJECT / "docs" / "connect-a-fleet.md").read_text()
    match = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


def test_readings_of_pumps_reach_consumers_as_rows_and_alarms(
    install: Callable[..., Installation], tmp_path: Path
) -> None:
    """The profile has alarm levels, optional fields, a topic with a wildcard, and its own rule."""
    flux = tmp_path / "flux"
    shutil.copytree(PROJECT / "include" / "flux", flux)
    (flux / "alarm_dry_run.flux").write_text(block("flux"))
    profile = yaml.safe_load(block("yaml"))
    del profile["name"]
    profile["alarms"].append(
        {
            "rule": "dry_run",
            "writes": "dry_run",
            "flux": "alarm_dry_run.flux",
            "level": "dry",
            "normal": "ok",
        }
    )
    installation = install(profile, HEADRACE_FLUX_DIR=str(flux))
    installation.worker("bridge").start()
    installation.worker("sink").launch()
    start = floor(datetime.now(UTC), WINDOW) - 2 * WINDOW
    example = json.loads(block("json"))
    pumps = {
        "plant/north/pump/p17": {**example, "time": rfc3339(start)},
        "plant/south/pump/p2": {"pumpID": "p2", "flow": 0.0, "pressure": 14.0},
        "plant/south/pump/p3": {"pumpID": "p3", "flow": 0.0, "pressure": 5.0},
    }
    pumps["plant/south/pump/p2"] |= {"time": rfc3339(start + WINDOW / 2)}
    pumps["plant/south/pump/p3"] |= {"time": rfc3339(start), "motor_temperature": 80.0}
    with Publisher(installation.backbone.mqtt_port) as publisher:
        publisher.send_all(list(pumps.items()))
    wait_for(lambda: len(installation.points("flow")) == len(pumps))
    installation.compute(WindowRange(start, start + WINDOW, WINDOW))
    levels = {
        row["pumpID"]: (row["pressure_alarm"], row["motor_alarm"], row["dry_run"], row["utility"])
        for row in installation.rows()
    }
    assert levels == {
        "p17": ("ok", "ok", "ok", "waterworks"),
        "p2": ("check pressure", None, None, "waterworks"),
        "p3": ("ok", "ok", "dry", "waterworks"),
    }
