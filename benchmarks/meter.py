"""Reads CPU seconds and memory of whole processes from the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meter", "Usage", "cpu_seconds", "peak_megabytes", "resident_megabytes"]

_TICKS = os.sysconf("SC_CLK_TCK")
#: A core that is busy for this share of the time limits the result.
_SATURATED = 0.9


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and all its threads so far."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    # The process name can contain spaces and brackets, so split after the last bracket.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_megabytes(pid: int) -> float:
    """Return the peak resident memory of a process, in MB (10^6 bytes)."""
    return _status(pid, "VmHWM")


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process, in MB (10^6 bytes)."""
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    msg = f"the kernel does not say {name} of process {pid}"
    raise ValueError(msg)


@dataclass(frozen=True)
class Usage:
    """CPU use of some processes during a measurement.

    Parameters
    ----------
    seconds
        Duration of the measurement.
    cpu
        CPU seconds by name.
    """

    seconds: float
    cpu: Mapping[str, float]

    def limit(self) -> str:
        """Describe in a few words what limited the measurement."""
        shares = {name: used / self.seconds for name, used in self.cpu.items()}
        listed = ", ".join(
            f"{name} {share:.2f}"
            for name, share in sorted(shares.items(), key=lambda item: -item[1])
        )
        cores = os.cpu_count() or 1
        if sum(shares.values()) >= _SATURATED * cores:
            return f"CPU, all {cores} cores busy ({listed})"
        single = [name for name, share in shares.items() if share >= _SATURATED]
        if single:
            return f"one core, used by {single[0]} ({listed})"
        return f"waiting, no core was always busy ({listed})"


class Meter:
    """Measures processes from its creation to `read`.

    Parameters
    ----------
    processes
        Process ids by name.
    """

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = dict(processes)
        self._begun = time.monotonic()
        self._before = {name: cpu_seconds(pid) for name, pid in self._processes.items()}

    def read(self, more: Mapping[str, float] | None = None) -> Usage:
        """Return the CPU seconds since the creation; ``more`` adds values measured elsewhere."""
        return Usage(
            time.monotonic() - self._begun,
            {
                **{
                    name: cpu_seconds(pid) - self._before[name]
                    for name, pid in self._processes.items()
                },
                **(more or {}),
            },
        )
