"""The store of windows with an InfluxDB that only records requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.errors import BadQueryError, ConfigurationError
from headrace.models.alarm import AlarmChange, AlarmState, PublishedChange
from headrace.models.marker import Marker
from headrace.models.quality import CheckResult, Verdict
from headrace.models.window import WindowRange
from headrace.profile import Profile
from headrace.storage.flux_files import FluxFiles
from headrace.storage.influx_quality import InfluxQualityStore
from headrace.storage.influx_windows import InfluxWindowStore

FLUX = Path(__file__).resolve().parents[3] / "include" / "flux"
MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WINDOWS = WindowRange(NOON, NOON + 2 * MINUTE, MINUTE)
NOON_NS = 1_780_315_200_000_000_000


@dataclass
class RecordingInflux:
    """Answers every query with the same rows and records all requests in order."""

    answer: list[dict[str, Any]] = field(default_factory=list)
    told: list[tuple[str, ...]] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    def run(self, flux: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "nonsense" in flux:
            msg = "undefined identifier nonsense"
            raise BadQueryError(msg)
        self.params = dict(params)
        return self.answer

    def write(self, bucket: str, lines: bytes) -> None:
        self.told.append(("write", bucket, *lines.decode().split("\n")))

    def delete(self, bucket: str, start: datetime, stop: datetime, measurement: str) -> None:
        assert (start, stop) == (WINDOWS.start, WINDOWS.stop)
        self.told.append(("delete", bucket, measurement))


@pytest.fixture
def influx() -> RecordingInflux:
    return RecordingInflux()


def flux_files(influx: RecordingInflux, profile: Profile, folder: Path = FLUX) -> FluxFiles:
    return FluxFiles(cast("Any", influx), profile, folder)


def store_of(influx: RecordingInflux, profile: Profile) -> InfluxWindowStore:
    return InfluxWindowStore(flux_files(influx, profile))


def with_optional_field(profile: Profile) -> Profile:
    load = profile.fields["load"].model_copy(update={"required": False})
    return profile.model_copy(update={"fields": {**profile.fields, "load": load}})


def test_a_claimed_window_is_not_computed(profile: Profile, influx: RecordingInflux) -> None:
    store = store_of(influx, profile)
    store.claim(WINDOWS, 'run "1"')
    claimed = r'window settled=false,published=-1i,run="run \"1\"" '
    assert influx.told == [
        (
            "write",
            profile.buckets.quality,
            f"{claimed}{NOON_NS}",
            f"{claimed}{NOON_NS + 60 * 10**9}",
        )
    ]
    claimed_row = {"_time": NOON, "settled": False, "published": -1, "run": "r"}
    whole = {**claimed_row, "_time": NOON + MINUTE, "rows": 2, "readings": 8, "revision": None}
    # A window of half a minute, from a profile with shorter windows.
    odd = {**whole, "_time": NOON + timedelta(seconds=30)}
    influx.answer = [claimed_row, odd, whole]
    assert store.markers(WINDOWS) == {
        NOON + MINUTE: Marker(NOON + MINUTE, False, 2, 8, "r", published=-1)
    }


def test_rows_are_deleted_only_where_writing_would_not_replace_them(
    profile: Profile, influx: RecordingInflux
) -> None:
    """Markers are deleted first: a crash in between leaves missing windows, not wrong ones."""
    store_of(influx, with_optional_field(profile)).claim(WINDOWS, "r")
    assert [item[:2] for item in influx.told] == [
        ("delete", profile.buckets.quality),
        ("delete", profile.buckets.downsampled),
        ("write", profile.buckets.quality),
    ]


def test_markers_contain_integers(profile: Profile, influx: RecordingInflux) -> None:
    store = store_of(influx, profile)
    store.record_computed([Marker(NOON, True, 3, 12, "dag/run")])
    store.record_published({NOON: 3}, {})
    lines = [line for _, _, *some in influx.told for line in some]
    assert lines == [
        f'window settled=true,rows=3i,readings=12i,published=-1i,run="dag/run" {NOON_NS}',
        f"window published=3i,revision=0i {NOON_NS}",
    ]


def test_a_withdrawn_change_hides_its_fields(profile: Profile, influx: RecordingInflux) -> None:
    change = AlarmChange("g 1", "fuel", "refuel", AlarmState.WITHDRAWN, NOON, NOON)
    store_of(influx, profile).record_changes([PublishedChange(change, 1)])
    ((_, _, line),) = influx.told
    assert line == (
        r"alarm,generatorID=g\ 1,rule=fuel "
        f'state="withdrawn",alarm="withdrawn",since="withdrawn" {NOON_NS}'
    )


def test_without_changes_nothing_is_written(profile: Profile, influx: RecordingInflux) -> None:
    store_of(influx, profile).record_changes([])
    assert influx.told == []


def test_rows_contain_values_without_columns_of_flux(
    profile: Profile, influx: RecordingInflux
) -> None:
    influx.answer = [
        {
            "result": "_result",
            "table": 0,
            "_time": NOON + number * MINUTE,
            "generatorID": "g1",
            "fuel": 1.0,
            "readings": 2,
        }
        for number in (1, 0)
    ]
    rows = store_of(influx, profile).rows(WINDOWS)
    assert [row.start for row in rows] == [NOON, NOON + MINUTE]
    assert rows[0].device == "g1"
    assert rows[0].values == {"fuel": 1.0, "readings": 2}


def test_neighbours_without_a_value_are_included(profile: Profile, influx: RecordingInflux) -> None:
    influx.answer = [
        {"result": side, "_field": "alarm", "generatorID": "g1", "_time": NOON, "_value": "x"}
        for side in ("before", "after")
    ]
    found = store_of(influx, profile).neighbours(WINDOWS, ["readings", "alarm"], NOON - MINUTE)
    assert found.before == {"readings": {}, "alarm": {"g1": (NOON, "x")}}
    assert found.after == found.before
    assert influx.params["fields"] == ["readings", "alarm"]


def test_an_error_names_the_file(profile: Profile, influx: RecordingInflux, tmp_path: Path) -> None:
    flux = flux_files(influx, profile, tmp_path)
    with pytest.raises(ConfigurationError, match=r"no Flux file .*count_raw\.flux"):
        InfluxWindowStore(flux).count_raw(WINDOWS)
    (tmp_path / "count_raw.flux").write_text("nonsense()")
    with pytest.raises(BadQueryError) as refused:
        InfluxWindowStore(flux).count_raw(WINDOWS)
    assert refused.value.__notes__ == ["while running count_raw.flux"]


def test_results_of_checks_are_always_floats(profile: Profile, influx: RecordingInflux) -> None:
    """A count of windows is an integer, but InfluxDB refuses a field that changes its type."""
    result = CheckResult("adds_up", 3, 0, 2, Verdict.FAIL, 'a "detail"')
    InfluxQualityStore(flux_files(influx, profile)).record_checks(WINDOWS, [result])
    ((_, _, line),) = influx.told
    assert line == (
        'check,check=adds_up value=3.0,warn=0.0,fail=2.0,verdict="fail",'
        rf'detail="a \"detail\"",windows=2i {NOON_NS}'
    )
