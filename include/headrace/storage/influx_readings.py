"""The store of raw readings in InfluxDB 2.7, which separates refused readings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.errors import RefusedError
from headrace.ingest.reading_store import Refused
from headrace.profile import Profile
from headrace.storage.influx import Influx
from headrace.storage.reading_lines import LineBatch, LineEncoder
from headrace.storage.retries import until_it_works

__all__ = ["InfluxReadingStore", "Patience", "write_halving"]


def write_halving(
    write: Callable[[bytes], None], lines: Sequence[bytes]
) -> dict[int, RefusedError]:
    """Write all lines except those that InfluxDB refuses.

    A refusal names at most one point. So the lines are halved until each refused line is
    alone. Lines that are written twice become the same point.

    Parameters
    ----------
    write
        Writes lines, and raises `RefusedError` if InfluxDB refuses some or all of them.
    lines
        Line protocol.

    Returns
    -------
    dict
        InfluxDB's reason by the index of the refused line.
    """
    refused: dict[int, RefusedError] = {}
    # Ranges that are not written yet. A recursive inner function would keep the lines in a
    # reference cycle, and so in memory until the next garbage collection.
    ranges = [(0, len(lines))] if lines else []
    while ranges:
        start, stop = ranges.pop()
        try:
            write(b"\n".join(lines[start:stop]))
        except RefusedError as exc:
            if stop - start == 1:
                # Its traceback would keep this frame and all the lines.
                refused[start] = exc.with_traceback(None)
            else:
                middle = (start + stop) // 2
                ranges += [(middle, stop), (start, middle)]
    return refused


@dataclass(frozen=True)
class Patience:
    """Callbacks while a write waits for InfluxDB and after InfluxDB has accepted it.

    Parameters
    ----------
    problem
        Receives the problem before each retry.
    fine
        Called after each write that InfluxDB accepted.
    """

    problem: Callable[[str], None]
    fine: Callable[[], None]


class InfluxReadingStore:
    """Implements `headrace.ingest.reading_store.ReadingStore`.

    Parameters
    ----------
    influx
        InfluxDB. It is closed with the store.
    profile
        The kind of device.
    patience
        If given, writes are retried without a time limit after errors that no reading causes: an
        unavailable InfluxDB, a wrong token, a missing bucket, a full disk. Otherwise the first
        such error is raised.
    """

    def __init__(self, influx: Influx, profile: Profile, patience: Patience | None = None) -> None:
        self._influx = influx
        self._bucket = profile.buckets.raw
        self._encoder = LineEncoder(profile)
        self._patience = patience
        self._given_up = threading.Event()
        # A refused line is never accepted.
        self._attempts = (
            until_it_works(patience.problem, self._given_up, RefusedError) if patience else None
        )

    def new_batch(self) -> LineBatch:
        """Create an empty batch."""
        return LineBatch(self._encoder)

    def write(self, batches: Sequence[LineBatch]) -> list[dict[int, Refused]]:
        """Write batches together; see `headrace.ingest.reading_store.ReadingStore`."""
        lines = [line for batch in batches for line in batch.lines]
        errors = write_halving(self._write_lines, lines)
        refused: list[dict[int, Refused]] = []
        first = 0
        for batch in batches:
            stop = first + len(batch)
            refused.append(
                {
                    number - first: Refused(str(error), lines[number].decode("utf-8", "replace"))
                    for number, error in errors.items()
                    if first <= number < stop
                }
            )
            first = stop
        return refused

    def check(self) -> None:
        """Check that InfluxDB is up."""
        self._influx.ping()

    def give_up(self) -> None:
        """Make waiting writes raise their error."""
        self._given_up.set()

    def close(self) -> None:
        """Close the connection."""
        self._influx.close()

    def _write_lines(self, lines: bytes) -> None:
        if self._attempts is None:
            self._influx.write(self._bucket, lines)
        else:
            self._attempts(self._write_once, lines)

    def _write_once(self, lines: bytes) -> None:
        self._influx.write(self._bucket, lines)
        if self._patience is not None:
            self._patience.fine()
