"""The benchmark's servers and installations."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, Any, cast

import urllib3
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from benchmarks.filling import fill_kafka
from benchmarks.load.publisher import ROUND
from benchmarks.meter import Meter
from benchmarks.readings import FIRST_NUMBER
from headrace.storage.flux_values import FluxValue
from headrace.storage.kafka_log import read_topic
from native.servers import LOOPBACK
from tests.support.backbone import Backbone
from tests.support.installation import PROJECT, Installation

__all__ = [
    "CountError",
    "Load",
    "Workplace",
    "check_numbers",
    "check_stored",
    "partitions",
    "records_in",
    "wait_until",
]

_WARM_UP_READINGS, _LEAST_WARM_UP = 1_500_000, 400_000
#: Seconds between checks of a contender's progress.
_SOONEST_SECONDS, _LATEST_SECONDS = 0.02, 0.5
_COUNT_POINTS = """
from(bucket: params.bucket)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._field == params.field)
    |> group()
    |> count()
"""


#: The load starts with all devices at once, so the limit must not apply.
_ANY_DEVICE = {"HEADRACE_MAX_NEW_DEVICES": "100000000", "HEADRACE_MAX_DEVICES": "100000000"}


class CountError(Exception):
    """The counts at the end of a run do not match, so its results are invalid."""


@dataclass
class Load:
    """A load generator that is ready to send.

    Attributes
    ----------
    process
        The generator.
    cpu
        CPU seconds of sending; known at the end.
    begun, ended
        Times of the first reading sent and of the last acknowledgement, on the monotonic clock,
        which all processes share.
    """

    process: subprocess.Popen[bytes]
    cpu: float = 0.0
    begun: float = 0.0
    ended: float = 0.0
    _told: int = 0

    def tell(self, total: int) -> None:
        """Raise the total number of readings to send; a lower total has no effect."""
        if total <= self._told:
            return
        self._told = total
        stdin = cast("IO[bytes]", self.process.stdin)
        stdin.write(f"{total}\n".encode())
        stdin.flush()

    def finish(self, seconds: float = 600.0) -> None:
        """Wait until the broker has acknowledged all readings."""
        out, _ = self.process.communicate(timeout=seconds)
        said = json.loads(out.splitlines()[-1])
        self.cpu, self.begun, self.ended = said["cpu"], said["begun"], said["ended"]


@dataclass
class Workplace:
    """Kafka, InfluxDB and mosquitto for the whole benchmark.

    Parameters
    ----------
    console
        Shows the progress.
    repeats
        Runs of each contender.
    size
        Factor on the usual size of the loads.
    """

    console: Console
    repeats: int = 3
    size: float = 1.0
    backbone: Backbone = field(default_factory=Backbone)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kafka_is_warm = False
        self.folder = self.backbone.folder / "benchmarks"
        self.folder.mkdir()

    def start(self) -> None:
        """Start the servers."""
        self.backbone.ensure_running()

    def warm_kafka(self) -> None:
        """Produce many small batches, so that Kafka's JVM compiles its code.

        A Kafka that has just started uses up to five times the CPU. On two cores it takes that
        from the contenders, mostly from the first one.
        """
        if self._kafka_is_warm:
            return
        self.report("warming up Kafka")
        count = self.amount(_WARM_UP_READINGS, least=_LEAST_WARM_UP)
        with self.installation(HEADRACE_KAFKA_PARTITIONS="3") as installation:
            fill_kafka(installation, count, datetime.now(UTC), devices=1000, linger_ms=0)
        self._kafka_is_warm = True

    def close(self) -> None:
        """Stop the servers and delete their data."""
        self.backbone.close()

    def amount(self, usual: int, *, least: int = 1000) -> int:
        """Scale a number of readings, but not below a minimum at which start-up would matter."""
        return max(least, int(usual * self.size) // 1000 * 1000)

    def report(self, step: str) -> None:
        """Show the current step."""
        self.console.print(step, style="dim", highlight=False)

    @contextmanager
    def installation(self, **env: str) -> Iterator[Installation]:
        """Yield an installation for one run, with new topics, buckets and sessions."""
        folder = self.folder / f"run{next(self._numbers)}"
        installation = Installation(self.backbone, folder, env={**_ANY_DEVICE, **env})
        installation.provision()
        try:
            yield installation
        finally:
            installation.close()
            shutil.rmtree(folder, ignore_errors=True)

    def meter(self, **more: int) -> Meter:
        """Return a meter of the servers and of some more processes."""
        servers = {process.server.name: process.pid for process in self.backbone.processes}
        return Meter({**servers, **more})

    @contextmanager
    def load(
        self,
        installation: Installation,
        count: int,
        *,
        devices: int = 1000,
        rate: float = 0.0,
    ) -> Iterator[Load]:
        """Yield a load generator that has encoded its readings and waits for a total."""
        command = ["-m", "benchmarks.load.publisher", "--port", str(self.backbone.mqtt_port)]
        command += ["--prefix", installation.name, "--devices", str(devices)]
        command += ["--count", str(count), "--rate", str(rate)]
        with self.program(*command) as process:
            yield Load(process)

    @contextmanager
    def program(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program of the load and wait until it is ready."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            if not cast("IO[bytes]", process.stdout).readline():
                msg = f"{' '.join(arguments)} exited before it was ready"
                raise RuntimeError(msg)
            yield process
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    @contextmanager
    def reader(self, group: str = "benchmark") -> Iterator[Consumer]:
        """Yield a consumer for offset requests."""
        consumer = Consumer(
            {
                "bootstrap.servers": f"{LOOPBACK}:{self.backbone.kafka_port}",
                "group.id": group,
                "enable.auto.commit": False,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def points_written(self) -> int:
        """Return the number of points written to InfluxDB since its start."""
        url = f"http://{LOOPBACK}:{self.backbone.influx_port}/metrics"
        for line in urllib3.request("GET", url).data.decode().splitlines():
            if line.startswith("storage_writer_ok_points_sum"):
                return int(float(line.rpartition(" ")[2]))
        msg = "InfluxDB does not report how many points it wrote"
        raise CountError(msg)


def partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic."""
    found = consumer.list_topics(topic, 10).topics[topic].partitions
    return [TopicPartition(topic, number) for number in found]


def records_in(consumer: Consumer, places: list[TopicPartition]) -> int:
    """Return the number of records in partitions without transactions."""
    return sum(
        high - low
        for low, high in (consumer.get_watermark_offsets(place, timeout=10) for place in places)
    )


def wait_until(count: Callable[[], int], expected: int, seconds: float) -> float:
    """Wait until a count is reached; return that time, on the monotonic clock.

    Each check costs the measured server some milliseconds, so checks are rare until the
    count is nearly reached.
    """
    begun = time.monotonic()
    first = found = count()
    while found < expected:
        elapsed = time.monotonic() - begun
        if elapsed > seconds:
            msg = f"{found:,} of {expected:,} after {seconds:.0f} s"
            raise CountError(msg)
        left = (expected - found) * elapsed / max(1, found - first)
        time.sleep(min(max(_SOONEST_SECONDS, left / 4), _LATEST_SECONDS))
        found = count()
    return time.monotonic()


def check_numbers(installation: Installation, count: int) -> None:
    """Check that Kafka has each reading of a load once and no dead letter.

    Raises
    ------
    CountError
        If a reading is missing, stored twice, or rejected.
    """
    topics = installation.profile.topics
    times = bytearray(min(ROUND, count))
    for record in read_topic(installation.kafka, topics.raw):
        number = _number(record.value)
        if number >= 0:
            times[number] += 1
    whole, rest = divmod(count, ROUND)
    wrong = [number for number, found in enumerate(times) if found != whole + (number < rest)]
    if wrong:
        first = wrong[0]
        msg = f"{len(wrong):,} wrong counts of numbers: {first} is there {times[first]} times"
        raise CountError(msg)
    _check_dead_letters(installation)


def check_stored(installation: Installation, count: int) -> None:
    """Check that InfluxDB has this number of readings and that there is no dead letter.

    Raises
    ------
    CountError
        If the number differs, or if there is a dead letter.
    """
    profile = installation.profile
    now = datetime.now(UTC)
    params: dict[str, FluxValue] = {
        "bucket": profile.buckets.raw,
        "field": profile.counted_field,
        "start": now - timedelta(days=2),
        "stop": now + timedelta(days=1),
    }
    with installation.admin_influx() as influx:
        found = influx.query(_COUNT_POINTS, params)
    stored = sum(row["_value"] for row in found)
    if stored != count:
        msg = f"InfluxDB holds {stored:,} readings instead of {count:,}"
        raise CountError(msg)
    _check_dead_letters(installation)


def _check_dead_letters(installation: Installation) -> None:
    letters = installation.records(installation.profile.topics.dead_letter)
    if letters:
        msg = f"{len(letters):,} dead letters, the first: {letters[0].headers}"
        raise CountError(msg)


def _number(value: bytes) -> int:
    """Return the number of a reading in any peer's format; below 0 if it is not from the load."""
    content: dict[str, Any] = json.loads(value)
    content = content.get("fields", content)
    return int(content["fuel"]) - FIRST_NUMBER
