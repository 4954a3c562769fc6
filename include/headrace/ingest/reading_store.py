"""The store of raw readings, as the sink and replay see it.

They hand over payloads and learn which of them cannot be stored. How readings are written,
and how the ones at fault are found, is a matter of the store:
`headrace.storage.influx_readings` has the only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from headrace.models.deadletter import Rejection

__all__ = ["ReadingBatch", "ReadingStore", "Refused"]


@dataclass(frozen=True)
class Refused:
    """Why the store refused a reading, and how it wrote the reading: both for people."""

    reason: str
    reading: str


class ReadingBatch(Protocol):
    """Readings that are written together. What a batch holds is known only to its store."""

    def __len__(self) -> int:
        """Number of readings."""

    def add(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> dict[int, Rejection]:
        """Add readings, in their order.

        Parameters
        ----------
        payloads
            The readings, as the devices sent them.
        times_ns
            The time of each, in nanoseconds since the epoch: decimal text, as in Kafka's header.

        Returns
        -------
        dict
            By index: why a payload is not a reading. It is left out of the batch.
        """


_Batch = TypeVar("_Batch", bound=ReadingBatch)


class ReadingStore(Protocol[_Batch]):
    """Stores raw readings of one kind of device. Thread-safe: several writes may run at once."""

    def new_batch(self) -> _Batch:
        """Make an empty batch."""

    def write(self, batches: Sequence[_Batch]) -> list[dict[int, Refused]]:
        """Write batches together: all readings except those that are at fault.

        A reading that is written twice is stored once.

        Returns
        -------
        list of dict
            For each batch, by index: the readings that can't be stored.

        Raises
        ------
        HeadraceError
            If the store is unavailable, or refuses for a reason that is no reading's fault.
        """

    def check(self) -> None:
        """Ask the store whether it is available; raises `HeadraceError` if it is not."""

    def give_up(self) -> None:
        """Make waiting writes end with an error."""

    def close(self) -> None:
        """Close the connections."""
