"""Each alarm change is published once, and again only after a correction."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from headrace.models.window import rfc3339
from headrace.stages.alarm_record import read_standing
from tests.support.installation import PROJECT, Installation
from tests.support.ranges import MINUTE, hours_ago, windows

#: Device, rule, window (in minutes), state.
Change = tuple[str, str, int, str]


def told(installation: Installation) -> list[dict[str, Any]]:
    """Return all published changes, in order for each device."""
    topic = installation.profile.topics.alarms
    return [json.loads(record.value) for record in installation.records(topic)]


def standing(installation: Installation, begin: datetime) -> list[Change]:
    """Return the valid changes: the newest revision of each, without withdrawn ones."""
    newest = {
        (change["generatorID"], change["rule"], change["window_start"]): change
        for change in told(installation)
    }
    return sorted(
        (
            device,
            rule,
            (datetime.fromisoformat(window) - begin) // MINUTE,
            change["state"],
        )
        for (device, rule, window), change in newest.items()
        if change["state"] != "withdrawn"
    )


def test_both_rules_and_silent_devices_raise_and_clear_alarms(installation: Installation) -> None:
    begin = hours_ago(1)
    at = [begin + minute * MINUTE for minute in range(12)]
    installation.store(
        ("thirsty", at[0], {"fuel": 500}),
        ("thirsty", at[1], {"fuel": 499}),
        ("thirsty", at[2], {"fuel": 480}),
        ("thirsty", at[3], {"fuel": 900}),
        ("hot", at[0], {"temperature": 290}),
        ("hot", at[1], {"temperature": 290.5}),
        *(("hot", start, {"temperature": 100}) for start in at[2:]),
        ("thirsty", at[10], {}),
    )
    installation.compute(windows(begin, 11))
    rows = {(row["generatorID"], row["window_start"]): row for row in installation.rows()}
    # There is no row for a window without readings.
    assert len(rows) == 5 + 11
    assert rows["hot", rfc3339(at[1])]["temperature_alarm"] == "overheating"
    assert rows["hot", rfc3339(at[1])]["alarm"] == "no action"

    def change(device: str, rule: str, alarm: str, state: str, since: int, window: int) -> Any:
        return {
            "generatorID": device,
            "rule": rule,
            "alarm": alarm,
            "state": state,
            "since": rfc3339(at[since]),
            "window_start": rfc3339(at[window]),
            "revision": 0,
        }

    expected = [
        change("thirsty", "fuel", "refuel", "raised", 1, 1),
        change("thirsty", "fuel", "no action", "cleared", 3, 3),
        change("thirsty", "silent", "silent", "raised", 4, 6),
        change("thirsty", "silent", "reporting", "cleared", 10, 10),
        change("hot", "temperature", "overheating", "raised", 1, 1),
        change("hot", "temperature", "no action", "cleared", 2, 2),
    ]
    assert sorted(map(json.dumps, told(installation))) == sorted(map(json.dumps, expected))


def test_the_order_of_computing_does_not_change_the_alarms(
    install: Callable[..., Installation],
) -> None:
    """Compute pieces in any order, some of them twice, or all windows at once."""
    begin = hours_ago(2)
    generator = random.Random(5)  # noqa: S311 - the same order in every run
    readings = [
        (device, begin + minute * MINUTE, {"fuel": generator.choice([400, 600])})
        for device in ("generator1", "generator2", "generator3")
        for minute in range(30)
        # There are gaps of one window and of ten windows.
        if minute % 7 and not (device == "generator2" and 12 <= minute < 22)
    ]
    whole = install()
    whole.store(*readings)
    whole.compute(windows(begin, 30))
    expected = standing(whole, begin)
    assert ("generator2", "silent", 14, "raised") in expected
    # If windows are computed in order, no change is corrected.
    assert {change["revision"] for change in told(whole)} == {0}
    pieces = install()
    pieces.store(*readings)
    cuts = [windows(begin + minute * MINUTE, 6) for minute in range(0, 30, 6)]
    cuts += generator.sample(cuts, 2)
    generator.shuffle(cuts)
    for cut in cuts:
        pieces.compute(cut)
    assert standing(pieces, begin) == expected
    before = len(told(pieces))
    pieces.compute(windows(begin, 30))
    assert len(told(pieces)) == before


def test_a_correction_withdraws_the_changes_that_it_invalidates(installation: Installation) -> None:
    begin = hours_ago(1)
    installation.store(*(("generator1", begin + n * MINUTE, {"fuel": 600}) for n in (0, 2, 3)))
    installation.store(("generator1", begin + MINUTE, {"fuel": 499}))
    installation.compute(windows(begin, 4))
    assert standing(installation, begin) == [
        ("generator1", "fuel", 1, "raised"),
        ("generator1", "fuel", 2, "cleared"),
    ]
    # A later reading of the same window shows enough fuel at the end.
    late = begin + MINUTE + timedelta(seconds=30)
    installation.store(("generator1", late, {"fuel": 501}))
    installation.compute(windows(begin + MINUTE, 1))
    assert standing(installation, begin) == []
    assert Counter((change["state"], change["revision"]) for change in told(installation)) == {
        ("raised", 0): 1,
        ("cleared", 0): 1,
        ("withdrawn", 1): 2,
    }
    # An even later reading restores the change, with the next revision.
    installation.store(("generator1", late + timedelta(seconds=1), {"fuel": 1}))
    installation.compute(windows(begin + MINUTE, 1))
    assert standing(installation, begin) == [
        ("generator1", "fuel", 1, "raised"),
        ("generator1", "fuel", 2, "cleared"),
    ]
    assert max(change["revision"] for change in told(installation)) == 2


def test_a_missed_window_does_not_make_a_device_silent(installation: Installation) -> None:
    """The first live window after an outage changes nothing about the missed windows."""
    begin = hours_ago(1)
    outage = windows(begin + 5 * MINUTE, 30)
    installation.store(
        *(("busy", begin + minute * MINUTE, {}) for minute in range(40)),
        *(("gone", begin + minute * MINUTE, {}) for minute in range(15)),
    )
    installation.compute(windows(begin, 5))
    for start in windows(outage.stop, 5).starts():
        installation.compute(windows(start, 1))
    assert told(installation) == []
    installation.compute(outage)
    assert standing(installation, begin) == [("gone", "silent", 17, "raised")]
    assert [change["revision"] for change in told(installation)] == [0]


def gauge(pressure: float | None) -> dict[str, float]:
    return {} if pressure is None else {"pressure": pressure}


@pytest.mark.parametrize(
    ("before", "late", "expected"),
    [
        # Already low before the window without a value: the alarm was raised too late.
        ([5, None, None, 1], {1: 1}, [("generator1", "pressure", 1, "raised")]),
        # Not low when the alarm was raised; low again after the window without a value.
        ([5, 1, None, 1], {1: 5}, [("generator1", "pressure", 3, "raised")]),
        # An alarm whose end was not observed.
        (
            [1, None, None, 1],
            {1: 5},
            [
                ("generator1", "pressure", 0, "raised"),
                ("generator1", "pressure", 1, "cleared"),
                ("generator1", "pressure", 3, "raised"),
            ],
        ),
    ],
    ids=["earlier", "later", "between"],
)
def test_a_late_reading_of_an_optional_field_corrects_alarms(
    gauges: Installation,
    before: list[float | None],
    late: dict[int, float],
    expected: list[Change],
) -> None:
    begin = hours_ago(1)
    gauges.store(
        *(
            ("generator1", begin + number * MINUTE, gauge(value))
            for number, value in enumerate(before)
        )
    )
    for number in range(len(before)):
        gauges.compute(windows(begin + number * MINUTE, 1))
    for number, value in late.items():
        moment = begin + number * MINUTE + timedelta(seconds=30)
        gauges.store(("generator1", moment, gauge(value)))
        gauges.compute(windows(begin + number * MINUTE, 1))
    assert standing(gauges, begin) == expected
    with gauges.pipeline() as pipeline:
        recorded = read_standing(datetime.now(UTC), pipeline)
    assert [(change.rule, change.since) for change in recorded] == [
        ("pressure", begin + expected[-1][2] * MINUTE)
    ]


@pytest.fixture
def gauges(install: Callable[..., Installation]) -> Installation:
    """An installation with a rule on a field that readings may lack."""
    shipped = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())
    fields = {**shipped["fields"], "pressure": {"unit": "bar", "range": [0, 10], "required": False}}
    rule = {
        "rule": "pressure",
        "writes": "pressure_alarm",
        "flux": "alarm_threshold.flux",
        "params": {"field": "pressure", "below": 2},
        "level": "low",
        "normal": "enough",
    }
    return install({"fields": fields, "alarms": [*shipped["alarms"], rule]})


def test_a_device_with_late_readings_is_not_silent(installation: Installation) -> None:
    """The device sends 90 s late, so its windows are computed before its readings arrive."""
    begin = hours_ago(1)
    late = [begin + minute * MINUTE for minute in range(2, 6)]
    both = ("late", "gone", "other")
    installation.store(*((device, begin + n * MINUTE, {}) for n in (0, 1) for device in both))
    installation.store(*(("other", start, {}) for start in late))
    for minute in range(4):
        installation.compute(windows(begin + minute * MINUTE, 1))
    installation.store(("late", begin + 2 * MINUTE, {}), ("late", begin + 3 * MINUTE, {}))
    installation.compute(windows(late[2], 1))
    assert standing(installation, begin) == [("gone", "silent", 4, "raised")]
    installation.store(*(("late", start, {}) for start in late))
    installation.compute(windows(late[0], 4))
    assert standing(installation, begin) == [("gone", "silent", 4, "raised")]


@pytest.mark.parametrize("topic", ["alarms", "downsampled"])
def test_foreign_records_on_the_topics_are_skipped(installation: Installation, topic: str) -> None:
    begin = hours_ago(1)
    installation.store(("g1", begin, {"fuel": 700}), ("g1", begin + MINUTE, {"fuel": 400}))
    installation.compute(windows(begin, 1))
    name = getattr(installation.profile.topics, topic)
    (record, *_) = [*installation.records(installation.profile.topics.downsampled)]
    window = f'"window_start":"{rfc3339(begin + MINUTE)}"'.encode()
    producer = installation.kafka.producer()
    foreign: list[tuple[bytes | None, bytes | None]] = [
        (b"g1", b"hello"),
        (b"g1", b"[]"),
        (b"g1", None),
        (None, b"{}"),
        (b"g1", record.value[:-20]),
        (b"g1", b"{" + window),
        (b"g1", b'{"generatorID":"g1",' + window + b"}"),
        (b"g1", b'{"generatorID":"g1","revision":' + b"9" * 400 + b"," + window + b"}"),
        (b"g2", record.value.replace(rfc3339(begin).encode(), rfc3339(begin + MINUTE).encode())),
        (b"\xff\xfe", b"\xff\xfe" + window),
    ]
    for key, value in foreign:
        producer.produce(name, value, key)
    assert producer.flush(30) == 0
    result = installation.compute(windows(begin + MINUTE, 1))
    assert (result.new, result.corrected, result.changes) == (1, 0, 1)
    if topic == "alarms":
        assert result.foreign == {name: len(foreign)}
    else:
        # Only records with a timestamp near the window are read.
        assert 0 < result.foreign[name] < len(foreign)
    again = installation.compute(windows(begin + MINUTE, 1))
    assert (again.new, again.corrected, again.changes) == (0, 0, 0)
