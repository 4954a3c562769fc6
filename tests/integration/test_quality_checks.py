"""Each quality check on real servers, at its good, warn and fail level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
import yaml

from headrace.models.device_time import epoch_ns
from headrace.models.quality import CheckResult, Verdict, report_table
from headrace.models.window import WindowRange, floor
from headrace.stages.quality import check_quality, write_results
from tests.support.installation import PROJECT, Installation
from tests.support.ranges import MINUTE, hours_ago, windows

DEVICES = [f"generator{number}" for number in range(10)]
QUARTER = 15
#: Readings that the interval implies for each window.
PROMISED = 4


@dataclass(frozen=True)
class Fleet:
    """Events of a quarter of an hour.

    Parameters
    ----------
    reporting
        Devices that report.
    readings
        Readings of each device in a window.
    outside
        Values that lie outside their range.
    quiet
        Windows at the end without any reading.
    drifting
        Devices with a wrong clock.
    rejected
        Dead letters.
    broken
        Windows whose rows were lost after they were published.
    """

    reporting: int = 10
    readings: int = PROMISED
    outside: int = 0
    quiet: int = 0
    drifting: int = 0
    rejected: int = 0
    broken: int = 0


FLEETS = {
    Verdict.OK: Fleet(),
    Verdict.WARN: Fleet(
        reporting=8, readings=3, outside=6, quiet=2, drifting=2, rejected=3, broken=1
    ),
    Verdict.FAIL: Fleet(
        reporting=4, readings=1, outside=30, quiet=6, drifting=4, rejected=60, broken=3
    ),
}
#: Devices that a check reports, for the fleets that warn and fail.
NAMED: Mapping[str, Callable[[Fleet], list[str]]] = {
    "completeness": lambda fleet: DEVICES[fleet.reporting :],
    "readings": lambda fleet: DEVICES[: fleet.reporting] if fleet.readings == 1 else [],
    "out_of_range": lambda fleet: DEVICES[: min(fleet.outside, fleet.reporting)],
    "clock_drift": lambda fleet: DEVICES[: fleet.drifting],
}


def compute_quarter(installation: Installation, quarter: WindowRange, fleet: Fleet) -> None:
    """Store the readings of a fleet for a quarter of an hour and compute the windows."""
    # Two windows before the range, so that every device is known.
    before = windows(quarter.start - 6 * MINUTE, 2)
    installation.store(*((device, start, {}) for device in DEVICES for start in before.starts()))
    installation.compute(before)
    starts = list(quarter.starts())[: QUARTER - fleet.quiet]
    moments = [
        (device, start + timedelta(seconds=60 * (index + 0.99) / fleet.readings))
        for start in starts
        for index in range(fleet.readings)
        for device in DEVICES[: fleet.reporting]
    ]
    installation.store(
        *(
            (device, moment, {"fuel": 5000 if number < fleet.outside else 700})
            for number, (device, moment) in enumerate(moments)
        )
    )
    installation.compute(quarter)
    producer = installation.kafka.producer()
    topics = installation.profile.topics
    for topic in (topics.raw, topics.dead_letter):
        # Records must be able to carry an arrival time of an hour ago.
        installation.alter_topic(topic, message_timestamp_type="CreateTime")
    middle = quarter.start + 5 * MINUTE
    for number, device in enumerate(DEVICES):
        behind = timedelta(minutes=10) if number < fleet.drifting else timedelta(0)
        # One reading waited in the device's buffer, the other did not.
        for waited in (timedelta(hours=1), timedelta(0)):
            stamps = {"time_ns": middle - behind - waited, "taken_ns": middle}
            headers = [(name, str(epoch_ns(stamp))) for name, stamp in stamps.items()]
            produce(producer, topics.raw, device, middle, headers)
    for number, stamp in enumerate(("", "-1", "noon", "9" * 5000, "\u0661")):
        # A foreign record says nothing about the clock of a device.
        headers = [("taken_ns", stamp), ("time_ns", stamp)]
        produce(producer, topics.raw, f"other{number}", middle, headers)
    for _ in range(fleet.rejected):
        produce(producer, topics.dead_letter, "", middle, [("reason", "not_json")])
    for reason in ("replayed", "kafka_deleted", "from another program"):
        for _ in range(100):
            produce(producer, topics.dead_letter, "", middle, [("reason", reason)])
    assert producer.flush(30) == 0
    profile = installation.profile
    with installation.admin_influx() as influx:
        for start in starts[: fleet.broken]:
            influx.delete(profile.buckets.downsampled, start, start + MINUTE, profile.measurement)


def produce(
    producer: object, topic: str, key: str, moment: datetime, headers: list[tuple[str, str]]
) -> None:
    stamp = int(moment.timestamp() * 1000)
    producer.produce(topic, b"{}", key.encode(), timestamp=stamp, headers=headers)  # type: ignore[attr-defined]


def check(installation: Installation, quarter: WindowRange) -> dict[str, CheckResult]:
    settings = installation.settings
    drift = settings.max_clock_drift.total_seconds()
    with installation.pipeline() as pipeline:
        results = check_quality(quarter, settings.installed_at, drift, pipeline)
        write_results(quarter, results, pipeline)
    return {result.name: result for result in results}


@pytest.mark.parametrize("expected", FLEETS, ids=str)
def test_every_check_reports_every_level(
    install: Callable[..., Installation], expected: Verdict
) -> None:
    quality = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())["quality"]
    # The shipped profile fails on one mismatched window; this one warns first.
    installation = install(
        {"quality": {**quality, "adds_up": {"warn": 0, "fail": 2}}},
        HEADRACE_INSTALLED_AT="2026-01-01T00:00:00Z",
    )
    quarter = windows(hours_ago(1), QUARTER)
    fleet = FLEETS[expected]
    compute_quarter(installation, quarter, fleet)
    results = check(installation, quarter)
    assert list(results) == list(quality)
    assert {name: result.verdict for name, result in results.items()} == dict.fromkeys(
        results, expected
    ), report_table(list(results.values()))
    for name, devices in NAMED.items():
        assert list(results[name].devices) == devices(fleet)

    with installation.admin_influx() as influx:
        written = influx.run(
            "from(bucket: params.bucket) |> range(start: params.start, stop: params.stop)"
            ' |> filter(fn: (r) => r._measurement == "check" and r._field == "verdict") |> group()',
            {
                "bucket": installation.profile.buckets.quality,
                "start": quarter.start,
                "stop": quarter.stop,
            },
        )
    assert {row["check"]: row["_value"] for row in written} == dict.fromkeys(results, expected)


def test_late_readings_are_not_reported_as_wrong(installation: Installation) -> None:
    """Extra raw readings are late and not an error; missing raw readings are an error."""
    installation.environment["HEADRACE_INSTALLED_AT"] = "2026-01-01T00:00:00Z"
    quarter = windows(hours_ago(1), QUARTER)
    installation.store(*(("generator1", start, {}) for start in quarter.starts()))
    installation.compute(quarter)
    late = quarter.start + timedelta(seconds=30)
    installation.store(("generator1", late, {}))
    waiting = check(installation, quarter)["adds_up"]
    assert (waiting.verdict, waiting.value) == (Verdict.OK, 0)
    assert "1 wait for late readings" in waiting.detail
    installation.compute(windows(quarter.start, 1))
    assert "0 wait for late readings" in check(installation, quarter)["adds_up"].detail
    with installation.admin_influx() as influx:
        measurement = installation.profile.measurement
        influx.delete(installation.profile.buckets.raw, late, late + MINUTE / 2, measurement)
    assert check(installation, quarter)["adds_up"].verdict is Verdict.FAIL


def test_unsettled_windows_are_reported_and_not_judged(installation: Installation) -> None:
    installation.environment["HEADRACE_INSTALLED_AT"] = "2026-01-01T00:00:00Z"
    quarter = windows(hours_ago(1), QUARTER)
    installation.store(*(("generator1", start, {}) for start in quarter.starts()))
    installation.compute(quarter, settled=False)
    result = check(installation, quarter)["completeness"]
    assert result.verdict is Verdict.NOT_JUDGED
    assert f"0 of {QUARTER} windows judged" in result.detail


@pytest.mark.parametrize("minutes", [20, 30, 60])
def test_windows_longer_than_a_quarter_of_an_hour_are_checked(
    install: Callable[..., Installation], minutes: int
) -> None:
    length = timedelta(minutes=minutes)
    shipped = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())
    installation = install(
        {"window": f"{minutes}m", "silent": {**shipped["silent"], "after": f"{2 * minutes}m"}},
        HEADRACE_INSTALLED_AT="2026-01-01T00:00:00Z",
    )
    stop = floor(hours_ago(1), length)
    range_ = WindowRange(stop - 2 * length, stop, length)
    moments = (range_.start + number * timedelta(seconds=15) for number in range(8 * minutes))
    installation.store(*(("generator1", moment, {}) for moment in moments))
    installation.compute(range_)
    last = WindowRange(stop - length, stop, length)
    results = check(installation, last)
    for name in ("completeness", "readings", "freshness", "adds_up", "out_of_range"):
        assert results[name].verdict is Verdict.OK, report_table(list(results.values()))
