from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.meter import Usage
from benchmarks.results import OURS, Measured, Remark, merged, row_with_peer, row_without_peer
from benchmarks.table import figure, markdown_rows

FIELDS = {"name", "unit", "value", "peer", "peer_value", "ratio", "runs"}


def _runs(**values: list[float]) -> list[Measured]:
    return [Measured(by, value) for by, several in values.items() for value in several]


def test_medians_are_compared_with_the_best_peer() -> None:
    runs = _runs(headrace=[90, 300, 100], slow=[10, 10, 10], fast=[50, 40, 1000])
    row = row_with_peer("bridge.rate", "readings/s", runs, Remark("CPU"))
    assert (row.value, row.peer, row.peer_value, row.ratio) == (100, "fast", 50, 2.0)
    assert row.met


def test_the_ratio_is_inverted_where_less_is_better() -> None:
    runs = _runs(headrace=[2.0], quick=[6.0], slow=[9.0], article=[1.0])
    row = row_with_peer(
        "downsample.hour", "s", runs, Remark(""), more_is_better=False, only_shown=("article",)
    )
    assert (row.peer, row.ratio) == ("quick", 3.0)
    assert not row.met, "the goal is four times as fast"


@pytest.mark.parametrize(("value", "reason", "met"), [(119, "", True), (121, "", False)])
def test_a_goal_can_be_an_upper_bound(value: float, reason: str, *, met: bool) -> None:
    assert row_without_peer("memory", "MB", value, [], Remark("", reason)).met is met


def test_a_row_with_a_reason_is_missed() -> None:
    assert not row_without_peer("memory", "MB", 50, [], Remark("", "it grew")).met


@pytest.mark.parametrize(("value", "said"), [(119, ""), (121, "the reason")])
def test_the_reason_is_shown_only_if_the_goal_is_missed(
    tmp_path: Path, value: float, said: str
) -> None:
    row = row_without_peer("memory", "MB", value, [], Remark("CPU", if_missed="the reason"))
    contents = merged(tmp_path / "none.json", [row], {"measured": "now"})
    assert contents["remarks"]["memory"]["missed_because"] == said


def test_rows_that_were_not_measured_again_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    growth = row_without_peer("growth", "", 1.0, _runs(headrace=[1.0]), Remark("CPU"))
    path.write_text(json.dumps(merged(path, [growth], {"machine": "this", "measured": "then"})))
    again = row_with_peer("bridge.cpu", "", _runs(headrace=[4], peer=[1]), Remark("CPU"))
    contents = json.loads(json.dumps(merged(path, [again], {"machine": "this", "measured": "now"})))
    assert contents["measured"] == "now"
    assert {name: remark["measured"] for name, remark in contents["remarks"].items()} == {
        "bridge.cpu": "now",
        "growth": "then",
    }
    assert [row["name"] for row in contents["rows"]] == ["bridge.cpu", "growth"]
    assert all(set(row) == FIELDS for row in contents["rows"])
    assert contents["rows"][0]["runs"] == [{"by": OURS, "value": 4}, {"by": "peer", "value": 1}]
    assert contents["remarks"]["bridge.cpu"]["met"]


def test_rows_of_another_machine_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    growth = row_without_peer("growth", "", 1.0, [], Remark("CPU"))
    path.write_text(json.dumps(merged(path, [growth], {"machine": "one", "measured": "then"})))
    assert merged(path, [], {"machine": "another"})["rows"] == []


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ({"a": 9.5, "b": 0.1}, "one core, used by a"),
        ({"a": 1.0}, "waiting"),
    ],
)
def test_the_limit_of_a_run_follows_from_cpu_seconds(cpu: dict[str, float], said: str) -> None:
    assert Usage(10.0, cpu).limit().startswith(said)


@pytest.mark.parametrize(
    ("value", "down", "up"),
    [(1.991, "1.99", "2.00"), (0.29, "0.29", "0.29"), (119.2, "119", "120"), (None, "", "")],
)
def test_figures_are_rounded_in_the_requested_direction(
    value: float | None, down: str, up: str
) -> None:
    assert figure(value) == down
    assert figure(value, up=True) == up


def test_no_figure_is_rounded_in_our_favour(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rows = [
        row_with_peer("bridge.rate", "", _runs(headrace=[12.999], peer=[6.501]), Remark("CPU")),
        row_with_peer(
            "downsample.hour",
            "",
            _runs(headrace=[4.001], p=[9.999]),
            Remark(""),
            more_is_better=False,
        ),
        row_without_peer("memory", "MB", 120.1, [], Remark("")),
    ]
    path.write_text(json.dumps(merged(path, rows, {"measured": "2026-11-25T12:00:00Z"})))
    _, *lines = markdown_rows(path)
    assert [(line[1], line[4], line[5]) for line in lines] == [
        ("12.99", "6.51", "1.99"),
        ("4.01", "9.99", "2.49"),
        ("121", "", ""),
    ]
