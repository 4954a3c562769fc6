"""The device profile is read and checked, and wrong entries are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.errors import ConfigurationError
from headrace.profile import Profile, load_profile


def write(tmp_path: Path, profile: Profile, **changes: Any) -> Path:
    content = profile.model_dump(mode="json")
    content["window"], content["interval"], content["grace"] = "1m", "15s", "500ms"
    content["silent"] = {"after": "3m", "known": "24h"}
    # The shipped profile has the defaults.
    del content["retries"]
    for check, levels in content["quality"].items():
        if check == "freshness":
            content["quality"][check] = {"warn": "60s", "fail": "300s"}
        assert levels
    content.update(changes)
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_shipped_profile_has_the_names_of_the_article(profile: Profile) -> None:
    assert profile.name == "generators"
    assert profile.mqtt.readings_filter == "emergency_generator/+"
    assert profile.mqtt.status_filter == "emergency_generator/+/status"
    assert (profile.topics.raw, profile.topics.downsampled) == ("kafka_raw", "kafka_downsampled")
    assert profile.tags == {"region": "US"}
    fuel = profile.alarms[0]
    assert (fuel.writes, fuel.level, fuel.normal) == ("alarm", "refuel", "no action")
    assert fuel.params == {"field": "fuel", "below": 500}


def test_a_written_profile_is_the_same(tmp_path: Path, profile: Profile) -> None:
    assert load_profile(write(tmp_path, profile)) == profile


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"window": "7m"}, "window"),
        ({"window": "30s"}, "window"),
        ({"window": "2h"}, "window"),
        ({"grace": "1m"}, "grace"),
        ({"name": "Has Spaces"}, "name"),
        ({"colour": "red"}, "colour"),
        ({"mqtt": {"topic": "a/b", "status_topic": "a/{id}/s"}}, "mqtt.topic"),
        ({"mqtt": {"topic": "a/#/{id}", "status_topic": "a/{id}/s"}}, "mqtt.topic"),
        ({"mqtt": {"topic": "a/x{id}", "status_topic": "a/{id}/s"}}, "mqtt.topic"),
        ({"tags": {"fuel": "x"}}, "the name fuel"),
        ({"tags": {"revision": "x"}}, "the name revision"),
        ({"silent": {"after": "10s", "known": "1d"}}, "silent.after"),
        ({"fields": {"a": {"unit": "m", "range": [2, 1]}}}, "fields.a"),
        ({"fields": {"a": {"unit": "m", "range": [1, 2], "required": False}}}, "fields"),
    ],
)
def test_a_wrong_entry_is_named(
    tmp_path: Path, profile: Profile, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_profile(write(tmp_path, profile, **changes))
    assert named in str(refused.value)
    assert "profile.yaml" in str(refused.value)


def test_rules_need_unique_names_and_fields(tmp_path: Path, profile: Profile) -> None:
    rules = [rule.model_dump() for rule in profile.alarms]
    for change in ({"rule": "fuel"}, {"rule": "silent"}, {"writes": "alarm"}):
        with pytest.raises(ConfigurationError):
            load_profile(write(tmp_path, profile, alarms=[rules[0], {**rules[1], **change}]))


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", ""])
def test_a_file_that_is_not_a_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"profile\.yaml"):
        load_profile(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_PROFILE"):
        load_profile(tmp_path / "nowhere.yaml")
