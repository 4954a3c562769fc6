"""The table of results on the terminal and in the documents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.goals import GOALS
from benchmarks.results import Row

__all__ = ["figure", "markdown_rows", "print_table"]

_HEADER = ("row", "ours", "unit", "peer", "the peer's", "ratio", "goal")


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """Print the rows with their goals, then the limit of each row."""
    table = Table(*_HEADER, "", box=None, padding=(0, 1, 0, 0))
    # On a narrow terminal cells wrap and are not truncated.
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    for row in rows:
        verdict = "[green]met[/]" if row.met else "[red]missed[/]"
        table.add_row(*_cells(row.content()), str(GOALS[row.name]), verdict)
    console.print(table)
    for row in rows:
        console.print(f"{row.name}: limited by {row.remark.limited_by}", style="dim")
        if row.missed_because:
            console.print(f"  missed: {row.missed_because}")


def markdown_rows(results: Path) -> list[list[str]]:
    """Return the cells of the results' table from the file, the header first."""
    contents: Mapping[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    cells = [[*_HEADER, "met", "limited by", "measured"]]
    for row in contents["rows"]:
        remark = contents["remarks"][row["name"]]
        met = "yes" if remark["met"] else f"no: {remark['missed_because']}".removesuffix(": ")
        name, *others = _cells(row)
        day = remark["measured"].partition("T")[0]
        cells.append([f"`{name}`", *others, remark["goal"], met, remark["limited_by"], day])
    return cells


def figure(value: float | None, *, up: bool = False) -> str:
    """Format a figure, as an integer from 100 and else with two decimals.

    The direction of rounding is fixed, so that the caller never rounds in our favour.
    """
    if value is None:
        return ""
    rounded = math.ceil if up else math.floor
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{rounded(value):,}"
    return f"{rounded(round(value * 100, 6)) / 100:.2f}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    value, peer_value, ratio = row["value"], row["peer_value"], row["ratio"]
    if ratio is None:
        less_is_better = GOALS[row["name"]].at_most
    else:
        less_is_better = (value > peer_value) != (ratio > 1)
    return [
        row["name"],
        figure(value, up=less_is_better),
        row["unit"],
        row["peer"] or "",
        figure(peer_value, up=not less_is_better),
        figure(ratio),
    ]
