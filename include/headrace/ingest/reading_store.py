"""The interface of the store of raw readings, for the sink and for replay.

The store receives payloads and returns those that cannot be stored. The format of writes and the
search for refused readings are details of the implementation, `headrace.storage.influx_readings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from headrace.models.deadletter import Rejection

__all__ = ["ReadingBatch", "ReadingStore", "Refused"]


@dataclass(frozen=True)
class Refused:
    """Reason of the store for refusing a reading, and the reading as written, for people."""

    reason: str
    reading: str


class ReadingBatch(Protocol):
    """Readings that are written together, in a format of their store."""

    def __len__(self) -> int:
        """Number of readings."""

    def add(self, payloads: Sequence[bytes], times_ns: Sequence[bytes]) -> dict[int, Rejection]:
        """Add readings in order.

        Parameters
        ----------
        payloads
            Payloads of the readings.
        times_ns
            Event times in nanoseconds since the epoch, as decimal text.

        Returns
        -------
        dict
            Reason why a payload is not a reading, by index. These payloads are not in the batch.
        """


_Batch = TypeVar("_Batch", bound=ReadingBatch)


class ReadingStore(Protocol[_Batch]):
    """Stores raw readings of one kind of device. Thread-safe: several writes may run at once."""

    def new_batch(self) -> _Batch:
        """Create an empty batch."""

    def write(self, batches: Sequence[_Batch]) -> list[dict[int, Refused]]:
        """Write all readings of some batches, except those that can't be stored.

        A reading that is written twice is stored once.

        Returns
        -------
        list of dict
            Readings that can't be stored, by index, for each batch.

        Raises
        ------
        HeadraceError
            If the store is unavailable, or refuses for a reason that no reading causes.
        """

    def check(self) -> None:
        """Check that the store is available; raises `HeadraceError` if it is not."""

    def give_up(self) -> None:
        """Make waiting writes raise their error."""

    def close(self) -> None:
        """Close the connections."""
