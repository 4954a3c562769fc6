"""Schedules of the DAGs for every window length and any installation date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
import yaml
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction

from headrace.models.window import floor
from headrace.orchestration import factory, heal_progress
from headrace.orchestration.factory import (
    cleanup_dag,
    quality_dag,
    reconcile_dag,
    windows_dag,
)
from headrace.orchestration.stage_tasks import await_ingest
from headrace.settings import load_settings
from tests.dags.conftest import PROJECT

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LENGTHS = [minutes for minutes in range(1, 61) if 60 % minutes == 0]
MAKERS = (windows_dag, reconcile_dag, quality_dag, cleanup_dag)


@pytest.fixture(autouse=True)
def _no_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=LENGTHS, ids=lambda minutes: f"{minutes}m")
def window(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> timedelta:
    """The window of a profile, with every allowed length."""
    content = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())
    content["window"] = f"{request.param}m"
    content["silent"]["after"] = "2h"
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("HEADRACE_PROFILE", str(path))
    return request.param * MINUTE


def intervals(dag: DAG, count: int) -> list[tuple[datetime, datetime]]:
    """Return the intervals of the next runs, in order."""
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    # Far enough in the past that this number of runs has ended.
    begin = pendulum.instance(floor(datetime.now(UTC), timedelta(days=1))).subtract(days=2)
    found: list[tuple[datetime, datetime]] = []
    last = None
    for _ in range(count):
        info = timetable.next_dagrun_info(
            last_automated_data_interval=last,
            restriction=TimeRestriction(begin, None, catchup=True),
        )
        assert info is not None
        last = info.data_interval
        # Pendulum's times have different arithmetic.
        start, end = (datetime.fromisoformat(m.isoformat()) for m in (last.start, last.end))
        found.append((start, end))
    return found


def test_every_live_run_covers_one_window(window: timedelta) -> None:
    for start, end in intervals(windows_dag("Live."), 30):
        assert end - start == window
        assert floor(start, window) == start


def test_every_quality_run_covers_whole_windows(window: timedelta) -> None:
    runs = intervals(quality_dag("Quality."), 30)
    for (start, end), (following, _) in pairwise(runs):
        assert end == following
        assert end > start
        assert not (end - start) % window
        assert floor(start, window) == start


def test_quality_runs_at_most_four_times_an_hour() -> None:
    lengths = {minutes: factory.quality_interval(minutes * MINUTE) // MINUTE for minutes in LENGTHS}
    assert lengths == {
        **dict.fromkeys((1, 3, 5, 15), 15),
        **dict.fromkeys((2, 4, 10, 20), 20),
        **dict.fromkeys((6, 30), 30),
        **dict.fromkeys((12, 60), 60),
    }


@pytest.mark.parametrize("limit", ["5s", "30s", "10m", "1h"])
def test_windows_waiting_for_the_sink_do_not_block_others(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("HEADRACE_SETTLE_LIMIT", limit)
    waiting = load_settings().settle_limit / MINUTE
    assert windows_dag("Live.").max_active_runs >= waiting + 8


@pytest.mark.parametrize(
    "age", [timedelta(days=900), timedelta(days=1), -2 * HOUR, -400 * 24 * HOUR]
)
def test_at_most_one_run_is_due_at_the_first_start(
    monkeypatch: pytest.MonkeyPatch, age: timedelta
) -> None:
    """The setting HEADRACE_INSTALLED_AT is years ago or in the future."""
    now = datetime.now(UTC)
    monkeypatch.setenv("HEADRACE_INSTALLED_AT", (now - age).isoformat())
    for make in MAKERS:
        dag = make("A DAG.")
        assert dag.start_date is not None
        assert dag.start_date <= now
        timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
        restriction = TimeRestriction(pendulum.instance(dag.start_date), None, catchup=dag.catchup)
        due = 0
        last = None
        while (
            info := timetable.next_dagrun_info(
                last_automated_data_interval=last, restriction=restriction
            )
        ) and info.run_after <= now:
            last = info.data_interval
            due += 1
            assert due <= 1, make
        # Windows are computed from now on, even while the setting is in the future.
        assert info is not None
        length = info.data_interval.end - info.data_interval.start
        assert info.run_after <= now + 2 * length
        assert ("HEADRACE_INSTALLED_AT" in (dag.doc_md or "")) == (age < timedelta(0))


class KeptVariable:
    """One Airflow Variable."""

    def __init__(self, value: str | None) -> None:
        self.value = value

    def get(self, name: str, default: None) -> str | None:
        assert name == "headrace_healed_until__a_reconcile"
        return default if self.value is None else self.value

    def set(self, name: str, value: str, description: str) -> None:
        assert name == "headrace_healed_until__a_reconcile"
        assert description
        self.value = value


def test_one_run_covers_everything_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptVariable(None)
    monkeypatch.setattr(heal_progress, "Variable", kept)
    now = datetime(2026, 6, 1, 12, tzinfo=UTC)
    installed = now - timedelta(days=100)
    settings = SimpleNamespace(installed_at=installed, heal_horizon=24 * HOUR)

    def begins(at: datetime) -> datetime:
        return heal_progress.heal_from("a_reconcile", at, settings)  # type: ignore[arg-type]

    assert begins(now) == installed
    heal_progress.set_healed_until("a_reconcile", now)
    assert begins(now + HOUR) == now - 24 * HOUR
    # After ten days without Airflow.
    assert begins(now + timedelta(days=10)) == now - 24 * HOUR
    # The last run had a fast clock, or a person changed the Variable.
    heal_progress.set_healed_until("a_reconcile", now + timedelta(days=900))
    assert begins(now) == now - 24 * HOUR
    kept.value = "no time"
    assert begins(now) == installed
    settings.installed_at = now + timedelta(days=1)
    assert begins(now) == now - 24 * HOUR


def test_a_long_grace_fits_into_the_time_limits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = yaml.safe_load((PROJECT / "include/profiles/generators.yaml").read_text())
    content.update(window="1h", grace="50m")
    content["silent"]["after"] = "2h"
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("HEADRACE_PROFILE", str(path))
    with windows_dag("Live.") as dag:
        task = await_ingest()
    assert task.execution_timeout > 50 * MINUTE
    assert dag.dagrun_timeout is not None
    assert dag.dagrun_timeout > task.execution_timeout
