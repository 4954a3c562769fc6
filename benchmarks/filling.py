"""Fills Kafka or InfluxDB with readings before a run, as bridge and sink write them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from benchmarks.readings import device, lines, payload
from headrace.models.device_time import epoch_ns
from tests.support.installation import Installation

__all__ = ["fill_influx", "fill_kafka", "prepared_lines"]

_BATCH = 5000
_MS = 1_000_000


def prepared_lines(
    installation: Installation,
    start: datetime,
    stop: datetime,
    *,
    devices: int,
    every: timedelta,
    batch: int = _BATCH,
) -> Iterator[bytes]:
    """Yield batches of lines of a fleet that reports evenly in ``[start, stop)``."""
    profile = installation.profile
    line = lines(profile.measurement, profile.id_field)
    begin, end = epoch_ns(start), epoch_ns(stop)
    step = every // timedelta(microseconds=1) * 1000
    written: list[str] = []
    for number, moment in enumerate(range(begin, end, step)):
        for index in range(devices):
            # As in a real fleet, each device reports at a different time.
            written.append(line(index, number * 31 + index, moment + index * step // devices))
            if len(written) == batch:
                yield "\n".join(written).encode()
                written.clear()
    if written:
        yield "\n".join(written).encode()


def fill_influx(
    installation: Installation,
    start: datetime,
    stop: datetime,
    *,
    devices: int,
    every: timedelta,
) -> int:
    """Write the readings of a fleet in ``[start, stop)``; return their number."""
    bucket = installation.profile.buckets.raw
    batches = prepared_lines(installation, start, stop, devices=devices, every=every)
    with installation.admin_influx() as influx, ThreadPoolExecutor(2) as pool:

        def write(data: bytes) -> int:
            influx.write(bucket, data)
            return data.count(b"\n") + 1

        return sum(pool.map(write, batches))


def fill_kafka(
    installation: Installation,
    count: int,
    start: datetime,
    *,
    devices: int,
    linger_ms: int = 20,
) -> None:
    """Produce readings to the raw topic as the bridge does, one device after the other.

    Readings of a device are one millisecond apart.
    """
    topic = installation.profile.topics.raw
    producer = installation.kafka.producer(
        linger_ms=linger_ms, queue_buffering_max_messages=200_000
    )
    begin = epoch_ns(start)
    for number in range(count):
        index = number % devices
        time_ns = begin + number // devices * _MS
        while True:
            try:
                producer.produce(
                    topic,
                    payload(index, number),
                    device(index).encode(),
                    timestamp=time_ns // _MS,
                    headers=[
                        ("time_ns", str(time_ns)),
                        ("topic", f"{installation.name}/{device(index)}"),
                        ("bridge", "benchmark"),
                        ("packet_id", str(number % 60_000 + 1)),
                    ],
                )
            except BufferError:
                producer.poll(0.05)
            else:
                break
        if not number % 1000:
            producer.poll(0)
    producer.flush()
