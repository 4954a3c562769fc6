"""Writes batches so that a bad reading affects no other, and finds unstorable records."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from headrace.errors import HeadraceError, RefusedError
from headrace.ingest.batch import Batch
from headrace.ingest.dead_letters import Rejected, Unstored
from headrace.ingest.health import Health
from headrace.ingest.reading_store import ReadingStore, Refused
from headrace.models.deadletter import Reason, Rejection
from headrace.models.lost import LostRecords
from headrace.profile import Profile
from headrace.storage.kafka import Kafka
from headrace.storage.kafka_log import read_topic
from headrace.storage.retries import until_it_works

__all__ = ["BatchWriter"]

_DETAIL_CHARACTERS = 500
#: Fetch buffer for reading records again.
_READ_KILOBYTES = 1024


class BatchWriter:
    """Writes batches to the store of readings.

    Thread-safe: several writes may run at once.

    Parameters
    ----------
    store
        The store. A write is retried until it succeeds.
    kafka
        Kafka, for reading refused readings again.
    profile
        The kind of device.
    health
        Health of the sink.
    """

    def __init__(
        self, store: ReadingStore[Any], kafka: Kafka, profile: Profile, health: Health
    ) -> None:
        self._store = store
        self._kafka = kafka
        self._topic = profile.topics.raw
        self._health = health
        self._given_up = threading.Event()
        self._attempts = until_it_works(
            partial(health.problem, "kafka"), self._given_up, RefusedError
        )

    def write(self, batches: Sequence[Batch]) -> Unstored:
        """Write batches together; retry without a time limit.

        Returns
        -------
        Unstored
            Records to send as dead letters.

        Raises
        ------
        HeadraceError
            If `give_up` was called before the store accepted the batches.
        """
        refused = self._store.write([batch.readings for batch in batches])
        rejected = [item for batch in batches for item in batch.rejected]
        lost = [item for batch in batches for item in batch.lost]
        for batch, some in zip(batches, refused, strict=True):
            if some:
                by_offset = {batch.offset_of(index): item for index, item in some.items()}
                found, gone = self._attempts(self._read_refused, batch.partition, by_offset)
                rejected += found
                lost += gone
        readings = sum(len(batch.readings) for batch in batches) - sum(map(len, refused))
        return Unstored(readings, rejected, lost)

    def check(self) -> None:
        """Check that the store is available while there is nothing to write."""
        try:
            self._store.check()
        except HeadraceError as exc:
            self._health.problem("influxdb", str(exc))
        else:
            self._health.fine("influxdb")

    def give_up(self) -> None:
        """Make waiting writes raise their error."""
        self._store.give_up()
        self._given_up.set()

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def _read_refused(
        self, partition: int, refused: Mapping[int, Refused]
    ) -> tuple[list[Rejected], list[LostRecords]]:
        """Read the records of refused readings from Kafka again, by their offsets.

        Returns
        -------
        tuple
            The records, and the range of deleted ones.
        """
        found: list[Rejected] = []
        missing = dict(refused)
        for record in read_topic(
            self._kafka,
            self._topic,
            {partition: min(refused)},
            {partition: max(refused) + 1},
            buffer_kilobytes=_READ_KILOBYTES,
        ):
            item = missing.pop(record.offset, None)
            if item is not None:
                found.append((record, Rejection(Reason.INFLUX_REFUSED, item.reason)))
        if not missing:
            return found, []
        one = missing[min(missing)]
        detail = (
            f"InfluxDB refused {len(missing)} readings, and Kafka deleted their records before "
            f"the sink could read them again. One of them: {one.reading}: {one.reason}"
        )
        place = self._topic, partition, min(missing), max(missing) + 1
        return found, [LostRecords(*place, detail[:_DETAIL_CHARACTERS])]
