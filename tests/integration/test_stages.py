"""The stages on real servers: rows, levels, records, markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from headrace.errors import BadQueryError, RangeNotOverError, RawDataGoneError
from headrace.models.device_time import epoch_ns
from headrace.models.window import WindowRange, floor, rfc3339
from headrace.stages.alarms import evaluate_alarms
from headrace.stages.downsample import downsample
from headrace.storage.flux_values import Row
from headrace.storage.influx import Influx
from tests.support.installation import PROJECT, Installation
from tests.support.ranges import MINUTE, hours_ago, windows


@pytest.fixture
def noon() -> datetime:
    """Start of a window in the past."""
    return hours_ago(2)


def test_a_row_has_the_last_reading_of_its_window(
    installation: Installation, noon: datetime
) -> None:
    installation.store(
        ("generator1", noon + timedelta(seconds=10), {"fuel": 900}),
        ("generator1", noon + timedelta(seconds=50), {"fuel": 499, "load": 80}),
        ("generator1", noon + timedelta(seconds=70), {"fuel": 500}),
        ("generator2", noon + timedelta(seconds=20), {"fuel": 100}),
    )
    result = installation.compute(windows(noon, 2))
    assert (result.rows, result.new, result.corrected) == (3, 3, 0)
    rows = {(row["generatorID"], row["window_start"]): row for row in installation.rows()}
    first = rows["generator1", rfc3339(noon)]
    assert first == {
        "generatorID": "generator1",
        "window_start": rfc3339(noon),
        "window_end": rfc3339(noon + MINUTE),
        "alarm": "refuel",
        "temperature_alarm": "no action",
        "region": "US",
        "lat": 40.0,
        "lon": -74.0,
        "temperature": 190.0,
        "power": 800.0,
        "load": 80.0,
        "fuel": 499.0,
        "readings": 2,
        "revision": 0,
    }
    assert rows["generator1", rfc3339(noon + MINUTE)]["alarm"] == "no action"
    assert rows["generator2", rfc3339(noon)]["readings"] == 1


def test_a_window_is_half_open(installation: Installation, noon: datetime) -> None:
    """A reading at the window's start belongs to it, a reading at its end to the next one."""
    installation.store(
        ("generator1", noon, {"fuel": 1}),
        ("generator1", noon + MINUTE, {"fuel": 2}),
        ("generator1", noon + MINUTE - timedelta(microseconds=1), {"fuel": 3}),
    )
    installation.compute(windows(noon, 1))
    (row,) = installation.rows()
    assert (row["fuel"], row["readings"]) == (3.0, 2)
    # Nothing is stored for the next window.
    with installation.pipeline() as pipeline:
        stored = pipeline.store.rows(windows(noon, 3))
    assert [row.start for row in stored] == [noon]
    installation.compute(windows(noon, 2))
    assert [(row["fuel"], row["readings"]) for row in installation.rows()] == [(3.0, 2), (2.0, 1)]


def test_markers_distinguish_empty_from_missing_windows(
    installation: Installation, noon: datetime
) -> None:
    installation.store(("generator1", noon, {}))
    installation.compute(windows(noon, 2), settled=False)
    with installation.pipeline() as pipeline:
        markers = pipeline.store.markers(windows(noon, 3))
    assert sorted(markers) == [noon, noon + MINUTE]
    full, empty = markers[noon], markers[noon + MINUTE]
    assert (full.rows, full.readings, full.published, full.settled) == (1, 1, 1, False)
    assert (empty.rows, empty.readings, empty.published) == (0, 0, 0)
    assert full.run == "test/1"


def test_computing_again_publishes_nothing(installation: Installation, noon: datetime) -> None:
    installation.store(("generator1", noon, {"fuel": 400}), ("generator2", noon, {}))
    installation.compute(windows(noon, 1))
    again = installation.compute(windows(noon, 1))
    assert (again.rows, again.new, again.corrected, again.changes) == (2, 0, 0, 0)
    assert len(installation.rows()) == 2


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes windows before they end, as if every other clock were ahead."""
    monkeypatch.setattr("headrace.stages.downsample.await_end", lambda *_: None)


def test_a_window_is_not_computed_before_it_ends(installation: Installation) -> None:
    """InfluxDB's clock is checked, too, in case the task's clock is fast."""
    window = windows(floor(datetime.now(UTC), MINUTE) + 2 * MINUTE, 1)
    installation.store(("generator1", window.start - 5 * MINUTE, {}))
    with installation.pipeline() as pipeline:
        for ahead in (timedelta(0), timedelta(minutes=5), timedelta(days=3)):
            wrong = replace(pipeline, clock=lambda ahead=ahead: datetime.now(UTC) + ahead)
            with pytest.raises(RangeNotOverError, match="is not over"):
                downsample(window, wrong, settled=True, run="test/1")
        assert pipeline.store.markers(window) == {}
        # With a slow clock, the stage waits up to a second for the window to end.
        over = windows(window.start - 5 * MINUTE, 1)
        behind = replace(pipeline, clock=lambda: over.stop - timedelta(seconds=0.2))
        assert downsample(over, behind, settled=True, run="test/1").rows == 1


@pytest.mark.usefixtures("no_waiting")
def test_a_publisher_with_a_slow_clock_finds_its_records(installation: Installation) -> None:
    """For a host with a slow clock, a published window may seem not to have ended."""
    window = windows(floor(datetime.now(UTC), MINUTE) + MINUTE, 1)
    installation.store(("generator1", window.start, {"fuel": 400}))
    installation.compute(window)
    topics = installation.profile.topics
    for topic in (topics.downsampled, topics.alarms):
        (record,) = installation.records(topic)
        assert record.timestamp_ms >= window.stop.timestamp() * 1000
    again = installation.compute(window)
    assert (again.rows, again.new, again.corrected, again.changes) == (1, 0, 0, 0)


@pytest.mark.usefixtures("no_waiting")
def test_provisioning_sets_the_timestamp_type_of_the_topics(
    installation: Installation,
) -> None:
    topics = installation.profile.topics
    for topic in (topics.downsampled, topics.alarms):
        installation.alter_topic(topic, message_timestamp_type="LogAppendTime")
    installation.provision()
    window = windows(floor(datetime.now(UTC), MINUTE) + MINUTE, 1)
    installation.store(("generator1", window.start, {"fuel": 400}))
    installation.compute(window)
    again = installation.compute(window)
    assert (again.rows, again.new, again.corrected, again.changes) == (1, 0, 0, 0)


def test_a_live_window_takes_nine_queries(
    installation: Installation, noon: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock, a count, the rows, two rules, the rows again, two of markers, and neighbours."""
    devices = [f"generator{number}" for number in range(3)]
    installation.store(
        *((device, start, {}) for device in devices for start in windows(noon, 5).starts())
    )
    installation.compute(windows(noon, 4))
    queries: list[str] = []
    query = Influx.query

    def count(influx: Influx, flux: str, *params: Any, **more: Any) -> Iterator[Row]:
        queries.append(flux)
        return query(influx, flux, *params, **more)

    monkeypatch.setattr(Influx, "query", count)
    assert installation.compute(windows(noon + 4 * MINUTE, 1)).new == 3
    assert len(queries) == 9


def test_a_window_without_readings_publishes_nothing(
    installation: Installation, noon: datetime
) -> None:
    assert installation.compute(windows(noon, 1)).rows == 0
    assert installation.rows() == []


@pytest.mark.parametrize("fuel", [499.99, 500.0, 500.01])
def test_the_alarm_level_changes_at_the_threshold(
    installation: Installation, noon: datetime, fuel: float
) -> None:
    installation.store(("generator1", noon, {"fuel": fuel}))
    installation.compute(windows(noon, 1))
    (row,) = installation.rows()
    assert row["alarm"] == ("refuel" if fuel < 500 else "no action")


def test_rows_without_the_tags_of_a_changed_profile_are_replaced(
    installation: Installation, noon: datetime
) -> None:
    profile = installation.profile
    kept = f"{profile.measurement},{profile.id_field}=generator1 fuel=1,readings=9i"
    with installation.admin_influx() as influx:
        influx.write(profile.buckets.downsampled, f"{kept} {epoch_ns(noon)}".encode())
    installation.store(("generator1", noon, {"fuel": 700}))
    installation.compute(windows(noon, 1))
    (row,) = installation.rows()
    assert (row["fuel"], row["readings"], row["alarm"]) == (700, 1, "no action")
    assert row["region"] == "US"


def test_a_profile_can_change_its_window_length(installation: Installation, noon: datetime) -> None:
    """Rows, markers and records of shorter windows do not affect longer ones."""
    begin = floor(noon, timedelta(minutes=5))
    installation.store(
        *(("generator1", begin + number * MINUTE, {"fuel": 500 - number}) for number in range(10))
    )
    installation.compute(windows(begin, 10))
    path = installation.settings.profile
    path.write_text(path.read_text().replace("window: 1m", "window: 5m").replace("3m", "5m"))
    longer = WindowRange(begin, begin + timedelta(minutes=10), timedelta(minutes=5))
    installation.compute(longer)
    newest = {
        (row["window_start"], row["window_end"]): (row["fuel"], row["readings"])
        for row in installation.rows()[-2:]
    }
    assert newest == {
        (rfc3339(start), rfc3339(start + longer.length)): (fuel, 5)
        for start, fuel in zip(longer.starts(), (496, 491), strict=True)
    }
    again = installation.compute(longer)
    assert (again.rows, again.new, again.corrected, again.changes) == (2, 0, 0, 0)


def test_a_foreign_point_can_lack_fields(installation: Installation, noon: datetime) -> None:
    """For example a point that another client wrote to the bucket."""
    profile = installation.profile
    line = f'{profile.measurement},{profile.id_field}=stranger fuel=5,note="odd" {epoch_ns(noon)}'
    with installation.admin_influx() as influx:
        influx.write(profile.buckets.raw, line.encode())
    installation.store(("generator1", noon, {"fuel": 700}))
    installation.compute(windows(noon, 1))
    rows = {row["generatorID"]: row for row in installation.rows()}
    assert (rows["stranger"]["fuel"], rows["stranger"]["load"]) == (5, None)
    assert (rows["generator1"]["fuel"], rows["generator1"]["load"]) == (700, 40)


def test_optional_fields_come_from_the_last_reading(
    install: Callable[..., Installation], noon: datetime
) -> None:
    """A row never mixes two readings, even if the last one lacks a field."""
    fields = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())["fields"]
    fields["pressure"] = {"unit": "bar", "range": [0, 10], "required": False}
    installation = install({"fields": fields})
    installation.store(
        ("generator1", noon + timedelta(seconds=1), {"fuel": 1, "pressure": 5}),
        ("generator2", noon + timedelta(seconds=1), {"fuel": 2}),
        ("generator2", noon + timedelta(seconds=2), {"fuel": 3, "pressure": 6}),
    )
    installation.compute(windows(noon, 1))
    rows = {row["generatorID"]: row for row in installation.rows()}
    assert (rows["generator1"]["fuel"], rows["generator1"]["pressure"]) == (1.0, 5.0)
    assert (rows["generator2"]["fuel"], rows["generator2"]["pressure"]) == (3.0, 6.0)
    with installation.admin_influx() as influx:
        stamp = int((noon + timedelta(seconds=30)).timestamp()) * 10**9
        values = "lat=1,lon=1,temperature=1,power=1,load=1,fuel=7"
        line = f"genData,generatorID=generator1 {values} {stamp}"
        influx.write(installation.profile.buckets.raw, line.encode())
    installation.compute(windows(noon, 1))
    row = [row for row in installation.rows() if row["generatorID"] == "generator1"][-1]
    assert (row["fuel"], row["pressure"], row["readings"], row["revision"]) == (7.0, None, 2, 1)


def test_a_range_without_its_raw_readings_is_refused(
    install: Callable[..., Installation], noon: datetime
) -> None:
    installation = install(HEADRACE_RAW_RETENTION="1h", HEADRACE_HEAL_HORIZON="1h")
    with installation.pipeline() as pipeline, pytest.raises(RawDataGoneError, match="are gone"):
        downsample(windows(noon, 1), pipeline, settled=True, run="test/1")


def test_an_error_in_a_rule_names_its_file(
    install: Callable[..., Installation], noon: datetime
) -> None:
    installation = install()
    flux = installation.folder / "flux"
    flux.mkdir()
    for path in (PROJECT / "include/flux").glob("*.flux"):
        (flux / path.name).write_text(path.read_text())
    (flux / "alarm_threshold.flux").write_text("from(bucket: params.downsampled) |> nonsense()")
    installation.environment["HEADRACE_FLUX_DIR"] = str(flux)
    with installation.pipeline() as pipeline, pytest.raises(BadQueryError) as refused:
        evaluate_alarms(windows(noon, 1), pipeline)
    assert "while running alarm_threshold.flux" in refused.value.__notes__
