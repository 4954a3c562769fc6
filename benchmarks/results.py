"""Results of the rows, and the file with all results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS

__all__ = ["OURS", "Measured", "Remark", "Row", "merged", "row_with_peer", "row_without_peer"]

OURS = "headrace"


@dataclass(frozen=True)
class Measured:
    """One run of one contender.

    Parameters
    ----------
    by
        Name of the contender: `OURS` or a peer.
    value
        Result in the row's unit.
    details
        Other values measured in the same run, by name.
    """

    by: str
    value: float
    details: Mapping[str, float] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {"by": self.by, "value": self.value, **self.details}


@dataclass(frozen=True)
class Remark:
    """Remarks on a row.

    Parameters
    ----------
    limited_by
        What limited the result.
    missed_because
        Reason to count the row as missed, whatever its figure.
    if_missed
        Explanation that is shown only if the figure misses the goal.
    """

    limited_by: str
    missed_because: str = ""
    if_missed: str = ""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Parameters
    ----------
    name, unit, value
        The result; the median if there are several runs.
    peer, peer_value
        The best peer.
    ratio
        Above 1 if Headrace is better than the peer.
    runs
        All runs, in order.
    remark
        Remarks on the row.
    """

    name: str
    unit: str
    value: float
    peer: str | None
    peer_value: float | None
    ratio: float | None
    runs: Sequence[Measured]
    remark: Remark

    @property
    def met(self) -> bool:
        """Whether the row reaches its goal and has no other reason to count as missed."""
        goal = GOALS[self.name]
        judged = self.ratio if goal.on_ratio else self.value
        return judged is not None and goal.met(judged) and not self.remark.missed_because

    @property
    def missed_because(self) -> str:
        """Why the goal was missed; empty if it was met."""
        return self.remark.missed_because or ("" if self.met else self.remark.if_missed)

    def content(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "peer": self.peer,
            "peer_value": self.peer_value,
            "ratio": self.ratio,
            "runs": [run.content() for run in self.runs],
        }


def row_with_peer(
    name: str,
    unit: str,
    runs: Sequence[Measured],
    remark: Remark,
    *,
    more_is_better: bool = True,
    only_shown: Collection[str] = (),
) -> Row:
    """Compare the medians of Headrace and of the best peer.

    Contenders in ``only_shown`` are listed among the runs but not compared.
    """
    medians = {
        by: statistics.median(run.value for run in runs if run.by == by)
        for by in dict.fromkeys(run.by for run in runs)
        if by not in only_shown
    }
    value = medians.pop(OURS)
    best = max if more_is_better else min
    peer = best(medians, key=medians.__getitem__)
    ratio = value / medians[peer] if more_is_better else medians[peer] / value
    return Row(name, unit, value, peer, medians[peer], ratio, runs, remark)


def row_without_peer(
    name: str, unit: str, value: float, runs: Sequence[Measured], remark: Remark
) -> Row:
    """Create a row without a peer."""
    return Row(name, unit, value, None, None, None, runs, remark)


def merged(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of the file with new results for some rows.

    Others stay as they are, unless they were measured on another machine.

    Parameters
    ----------
    path
        The file, which need not exist.
    rows
        New results.
    about
        Machine, versions and time.
    """
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if old.get("machine") != about.get("machine"):
        old = {}
    contents = {row["name"]: row for row in old.get("rows", [])}
    remarks = dict(old.get("remarks", {}))
    for row in rows:
        contents[row.name] = row.content()
        goal = GOALS[row.name]
        remarks[row.name] = {
            "measured": about["measured"],
            "goal": str(goal),
            "met": row.met,
            "limited_by": row.remark.limited_by,
            "missed_because": row.missed_because,
        }
    order = [name for name in GOALS if name in contents]
    return {
        **about,
        "rows": [contents[name] for name in order],
        "remarks": {name: remarks[name] for name in order},
    }
