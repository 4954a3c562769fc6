"""``python -m benchmarks.profile bridge|sink`` shows where a worker spends its time.

It prints the slowest Python functions, measured by py-spy and including the C code that they
call. librdkafka's threads are not included; the CPU seconds above the table are those of the
whole process.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from benchmarks.bridge import measure_bridge
from benchmarks.results import OURS
from benchmarks.sink import measure_sink
from benchmarks.workplace import Workplace

_PY_SPY = str(Path(sys.executable).parent / "py-spy")
_SAMPLES_A_SECOND = "250"
_WORKERS = {"bridge": measure_bridge, "sink": measure_sink}


def main(worker: str, readings: int = 400_000, lines: int = 25) -> None:
    """Profile a worker at its highest rate."""
    place = Workplace(Console())
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"

        @contextmanager
        def watched(pid: int) -> Iterator[None]:
            command = [_PY_SPY, "record", "--native"]
            command += ["--rate", _SAMPLES_A_SECOND, "--gil", "--format", "raw"]
            spy = subprocess.Popen([*command, "--output", str(stacks), "--pid", str(pid)])
            try:
                yield
            finally:
                spy.send_signal(signal.SIGINT)
                spy.wait(60)

        try:
            place.start()
            measured, _ = _WORKERS[worker](
                place, OURS, lambda made: made.worker(worker), readings, watched=watched
            )
        finally:
            place.close()
        alone, below = _count(stacks.read_text(encoding="utf-8"))
    total = sum(alone.values())
    each = measured.details["cpu_seconds"] / measured.details["readings"] * 1e6
    print(f"{worker}: {each:.1f} us of CPU a reading, {total:,} samples")
    print("| function | alone | with callees |\n|-|-|-|")
    for name, count in alone.most_common(lines):
        print(f"| `{name}` | {count / total:.1%} | {below[name] / total:.1%} |")


def _count(stacks: str) -> tuple[Counter[str], Counter[str]]:
    """Count samples by function: at the top of the stack, and anywhere on it."""
    alone: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        names = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        alone[names[-1]] += int(count)
        for name in set(names):
            below[name] += int(count)
    return alone, below


if __name__ == "__main__":
    typer.run(main)
