"""Every entry of a profile, taken from the schema, with unusual values.

Each value is refused when the profile is loaded, with the entry's name, or is listed below as
one that works. A new entry needs its accepted values in this list.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from headrace.checks.explain import allowed_values
from headrace.errors import ConfigurationError
from headrace.profile import Profile, load_profile
from headrace.profile_retries import Retries
from tests.unit.conftest import PROJECT

SHIPPED = PROJECT / "include" / "profiles" / "generators.yaml"
CONTENT: dict[str, Any] = {
    **yaml.safe_load(SHIPPED.read_text()),
    # The shipped profile keeps the defaults. All stages have the same entries.
    "retries": {
        "downsample": {"tries": 6, "delay": "3s", "backoff": 2, "max_delay": "30s", "limit": "5m"}
    },
}
#: Values that no entry accepts: wrong types, infinite, huge, unknown.
NEVER = (
    None,
    math.inf,
    math.nan,
    10**400,
    [],
    [[]],
    "5 parsecs",
    "999999999999d",
    "9" * 5000,
    "-1s",
    "a\nb\0",
    '"; drop',
)
#: Values that some entries accept.
SOMETIMES = (0, -1, 1.5, 1e300, True, "", "0s", "1ms", "1h", "60000d", "500", "feul", {})
_TEXT = {"0s", "1ms", "1h", "60000d", "500", "feul", "5 parsecs", "999999999999d", "-1s", '"; drop'}
_NAMES = {"feul"}
_DESTINATIONS = {"0s", "1ms", "1h", "60000d", "500", "feul", "999999999999d"}

#: Accepted values by entry.
WORKING: dict[str, set[Any]] = {
    "name": _NAMES,
    "description": _TEXT | {""},
    "id_field": _NAMES,
    "measurement": _NAMES,
    **{f"topics.{name}": _DESTINATIONS | {"-1s"} for name in CONTENT["topics"]},
    **{f"buckets.{name}": _DESTINATIONS for name in CONTENT["buckets"]},
    "fields.fuel.unit": _TEXT,
    "fields.fuel.required": {True},
    "tags.region": _TEXT,
    "grace": {"0s", "1ms"},
    "interval": {"1ms"},
    "alarms.0.rule": _NAMES,
    "alarms.0.writes": _NAMES,
    "alarms.0.level": _TEXT,
    "alarms.0.normal": _TEXT,
    "silent.after": {"1h"},
    "silent.known": {"1h"},
    "alarms": {"[]"},
    "quality.completeness.fail": {0},
    "quality.readings.fail": {0},
    "quality.out_of_range.warn": {0},
    "quality.clock_drift.warn": {0},
    "quality.dead_letters.warn": {0},
    "quality.freshness.warn": {"0s", "1ms"},
    "quality.freshness.fail": {"1h"},
    "quality.adds_up.warn": {0},
    "quality.adds_up.fail": {0},
    "tags": {"{}"},
    "retries": {"{}"},
    "retries.downsample": {"{}"},
    "retries.downsample.backoff": {1.5},
    "retries.downsample.max_delay": {"1h"},
    "retries.downsample.limit": {"1h"},
}


def entries(model: type[BaseModel], content: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield path and field of every entry, with one sample of each dictionary and list."""
    for name, field in model.model_fields.items():
        here = (*path, name)
        if path == ("retries",) and name not in content:
            continue
        yield here, field
        inner = content.get(name)
        if name == "fields":
            inner, here = inner["fuel"], (*here, "fuel")
        if name == "alarms":
            inner, here = inner[0], (*here, 0)
        if name == "tags":
            yield (*here, "region"), None
        models = [field.annotation, *get_args(field.annotation)]
        found = [item for item in models if isinstance(item, type) and issubclass(item, BaseModel)]
        if found:
            yield from entries(found[0], inner, here)


ENTRIES = {".".join(map(str, path)): (path, field) for path, field in entries(Profile, CONTENT)}


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    place: Any = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return content


def load(content: Any, tmp_path: Path) -> Profile:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_profile(path)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_unusual_value_is_refused_or_works(name: str, tmp_path: Path) -> None:
    path, field = ENTRIES[name]
    allowed = allowed_values(field) if field else None
    last = next(part for part in reversed(path) if isinstance(part, str))
    for value in (*NEVER, *SOMETIMES):
        shown = str(value) if value in ({}, []) else value
        works = shown in WORKING.get(name, set()) if isinstance(shown, str | int | float) else False
        if isinstance(value, bool):
            works = value in WORKING.get(name, set()) and "required" in path
        try:
            load(changed(path, value), tmp_path)
        except ConfigurationError as exc:
            assert last in str(exc)
            assert "profile.yaml" in str(exc)
            if allowed and "is not allowed. Write" in str(exc):
                assert allowed in str(exc)
            assert not works, f"{name} refuses {value!r}: {exc}"
        else:
            assert works, f"{name} accepts {value!r}"


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_states_what_is_allowed(name: str) -> None:
    _, field = ENTRIES[name]
    holds_others = any(other.startswith(f"{name}.") for other in ENTRIES)
    if field is not None and not holds_others:
        assert allowed_values(field), f"{name} needs a check that says what it allows"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_misspelt_entry_is_refused(name: str, tmp_path: Path) -> None:
    path, field = ENTRIES[name]
    if field is None:
        return
    content = changed((*path[:-1], f"{path[-1]}x"), "1")
    with pytest.raises(ConfigurationError, match=f"{path[-1]}x: unknown entry; did you mean"):
        load(content, tmp_path)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"field": "feul", "below": 500}, "did you mean fuel"),
        ({"field": "fuel", "bellow": 500}, "did you mean below"),
        ({"field": "fuel", "below": "500"}, "finite number"),
        ({"field": "fuel", "below": math.inf}, "below"),
        ({"field": "fuel", "above": math.nan}, "above"),
        ({"field": "fuel", "below": True}, "below"),
        ({"field": "fuel", "below": None}, "below"),
        ({"field": "fuel"}, "neither below nor above"),
        ({"field": "fuel", "below": 5, "above": 5}, "lower than above"),
        ({"below": 5}, "field"),
        ({"field": 5, "below": 5}, "field"),
        ({"field": "fuel", "below": 5, "start": "x"}, "start"),
        ({}, "field"),
        ([], "params"),
    ],
)
def test_parameters_of_the_threshold_rule_are_checked(
    params: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"params") as refused:
        load(changed(("alarms", 0, "params"), params), tmp_path)
    assert said in str(refused.value)


def test_a_custom_rule_accepts_other_parameters(tmp_path: Path) -> None:
    rule = {**CONTENT["alarms"][0], "flux": "own.flux", "params": {"depth": 4, "pump": "p"}}
    profile = load(changed(("alarms", 0), rule), tmp_path)
    assert profile.alarms[0].params == {"depth": 4.0, "pump": "p"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"topics": {**CONTENT["topics"], "raw": "a.b", "status": "a_b"}}, "topics: raw"),
        ({"topics": {**CONTENT["topics"], "raw": "__consumer_offsets"}}, "topics.raw"),
        ({"topics": {**CONTENT["topics"], "raw": ".."}}, "topics.raw"),
        ({"buckets": {**CONTENT["buckets"], "raw": "_monitoring"}}, "buckets.raw"),
        ({"buckets": {**CONTENT["buckets"], "raw": "data_quality"}}, "buckets: raw"),
        ({"mqtt": {"topic": "a/+/{id}", "status_topic": "a/{id}/status"}}, "mqtt: topic"),
        ({"mqtt": {"topic": "$SYS/{id}", "status_topic": "a/{id}"}}, "mqtt.topic"),
        ({"tags": {"result": "x"}}, "the name result"),
        ({"tags": {"a-b": "x"}}, "tags.a-b"),
        ({"tags": {"a": "x\\"}}, "tags"),
        ({"id_field": "alarm", "alarms": []}, "id_field"),
        ({"fields": {1: {"unit": "m", "range": [0, 1]}}}, "fields.1"),
        ({"fields": {}}, "fields"),
        ({"interval": "4m"}, "silent.after"),
        ({"silent": {"after": "2d", "known": "1d"}}, "silent: after"),
        ({"quality": {**CONTENT["quality"], "readings": {"warn": 0.1, "fail": 0.2}}}, "fail"),
        ({"quality": {**CONTENT["quality"], "freshness": {"warn": 60, "fail": 90}}}, "freshness"),
        ({"window": 60}, "window"),
    ],
)
def test_conflicting_entries_are_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load({**CONTENT, **change}, tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("retries", "said"),
    [
        (
            {"downsampel": {"tries": 3}},
            "retries.downsampel: unknown entry; did you mean downsample",
        ),
        ({"downsample": {"trys": 3}}, "retries.downsample.trys: unknown entry; did you mean tries"),
        ({"find": {"tries": 0}}, "retries.find.tries: 0 is not allowed. Write a whole number"),
        ({"find": {"delay": 30}}, "retries.find.delay: 30 is not allowed. Write a duration"),
        ({"find": {"delay": "30 sec"}}, "such as 15s). Write a duration from 1s to 1h"),
        ({"find": {"limit": "5ms"}}, "retries.find.limit: '5ms' is not allowed"),
        ({"find": {"backoff": 0.5}}, "retries.find.backoff: 0.5 is not allowed"),
        # With the default of the other.
        ({"republish": {"delay": "31s"}}, "retries.republish: delay (31s) must not be longer than"),
        ({"cleanup": {"tries": 3}}, "retries.cleanup: unknown entry"),
    ],
)
def test_wrong_retries_are_refused_with_the_stage_s_name(
    retries: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load({**CONTENT, "retries": retries}, tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize("stage", Retries.model_fields)
def test_a_profile_changes_what_it_names_and_nothing_else(stage: str, tmp_path: Path) -> None:
    default = getattr(Retries(), stage)
    profile = load({**CONTENT, "retries": {stage: {"tries": 9, "max_delay": "2m"}}}, tmp_path)
    changed_to = default.model_copy(update={"tries": 9, "max_delay": timedelta(minutes=2)})
    assert profile.retries == Retries().model_copy(update={stage: changed_to})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b\n", "name is given twice"),
        ("a: &a [x, *a]\n", "alias"),
        ("a: &a {b: *a}\n", "alias"),
        ("".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 9)), "YAML"),
        (
            "x0: &x0 [1]\n"
            + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            "more than",
        ),
        ("[" * 20_000, "levels"),
        ("name: 2024-13-45\n", "YAML"),
        ("name: !!python/object/apply:os.system [ls]\n", "YAML"),
        ("name: !!binary '*'\n", "name:"),
        ("? {a: b}\n: c\n", "name must be text"),
        ("name: a\n---\nname: b\n", "YAML"),
        ("\x00", "YAML"),
        ("x" * 2_000_000, "larger"),
        ("name: no\n", "name: False is not allowed"),
    ],
)
def test_wrong_or_hostile_yaml_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"profile\.yaml") as refused:
        load_profile(path)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 3000


@given(st.data())
@settings(max_examples=150)
def test_no_damage_to_the_file_causes_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = SHIPPED.read_bytes()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    piece = data.draw(
        st.binary(max_size=6)
        | st.sampled_from(
            [b"*a", b"&a", b": ", b"[", b"{", b".inf", b"1e999", b"~", b"<<: ", b"!!"]
        )
    )
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_bytes(text[:start] + piece + text[stop:])
    try:
        load_profile(path)
    except ConfigurationError as exc:
        assert "changed.yaml" in str(exc)
