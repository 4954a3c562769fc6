"""``python -m benchmarks`` runs the benchmarks for ``make bench``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import bridge, devices, downsample, growth, memory, path, sink, windows
from benchmarks.goals import GOALS
from benchmarks.machine import about
from benchmarks.peers import find_peers
from benchmarks.results import Row, merged
from benchmarks.table import print_table
from benchmarks.workplace import Workplace
from headrace.errors import HeadraceError

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"

#: Each function measures a group of rows.
FAMILIES: tuple[ModuleType, ...] = (
    bridge,
    sink,
    path,
    downsample,
    windows,
    growth,
    devices,
    memory,
)
#: Rows that take long.
LONG = {"fresh.p95", "heal.day", "growth", "devices", "memory"}

#: A tenth of most loads, for rough figures.
QUICK_SIZE = 0.1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    rows: Annotated[str, typer.Option(help="Rows, comma-separated; all if not given.")] = "",
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the rows that take long.")
    ] = False,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.")] = 3,
    size: Annotated[
        float, typer.Option(help="Factor on the size of the loads, for a quick trial.")
    ] = 1.0,
    results: Annotated[Path, typer.Option(help="File to write.")] = RESULTS,
) -> None:
    """Measure, print a table, and write the results."""
    console = Console()
    wanted = {name for name in rows.split(",") if name} or set(GOALS) - (LONG if quick else set())
    if quick:
        size *= QUICK_SIZE
    unknown = wanted - set(GOALS)
    if unknown:
        console.print(f"no such row: {', '.join(sorted(unknown))}. There are {', '.join(GOALS)}")
        raise typer.Exit(2)
    find_peers(console.print)
    # A shell ignores SIGINT for background commands, so set the handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    measured: list[Row] = []
    place = Workplace(console, repeats=repeats, size=size)
    try:
        place.start()
        for family in FAMILIES:
            ours = wanted & set(family.NAMES)
            for row in family.run(place, ours) if ours else ():
                measured.append(row)
                # Write after each row, so that results survive if a later row fails.
                contents = merged(results, measured, about())
                results.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    finally:
        place.close()
    print_table(console, measured)


def _leave(number: int, frame: FrameType | None) -> None:
    """Stop as after an error, so that no server keeps running."""
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        app()
    except HeadraceError as exc:
        print(f"benchmark: {exc}", file=sys.stderr)
        sys.exit(1)
