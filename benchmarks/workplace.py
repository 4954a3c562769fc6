"""The benchmark's servers, and the installations that use them."""

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
#: Seconds between two checks of a contender's progress.
_SOONEST_SECONDS, _LATEST_SECONDS = 0.02, 0.5
_COUNT_POINTS = """
from(bucket: params.bucket)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._field == params.field)
    |> group()
    |> count()
"""


#: The load begins with all its devices at once; nobody has to be kept out.
_ANY_DEVICE = {"HEADRACE_MAX_NEW_DEVICES": "100000000", "HEADRACE_MAX_DEVICES": "100000000"}


class CountError(Exception):
    """The counts at the end of a run do not match, so its results are invalid."""


@dataclass
class Load:
    """A load generator that is ready to go.

    Attributes
    ----------
    process
        The generator.
    cpu
        CPU seconds that sending took; known at the end.
    begun, ended
        When the first reading was sent and the last was acknowledged, on the monotonic
        clock, which all processes share.
    """

    process: subprocess.Popen[bytes]
    cpu: float = 0.0
    begun: float = 0.0
    ended: float = 0.0
    _told: int = 0

    def tell(self, total: int) -> None:
        """Raise the total that the generator may send to; a lower total has no effect."""
        if total <= self._told:
            return
        self._told = total
        stdin = cast("IO[bytes]", self.process.stdin)
        stdin.write(f"{total}\n".encode())
        stdin.flush()

    def finish(self, seconds: float = 600.0) -> None:
        """Wait until everything is sent and acknowledged by the broker."""
        out, _ = self.process.communicate(timeout=seconds)
        said = json.loads(out.splitlines()[-1])
        self.cpu, self.begun, self.ended = said["cpu"], said["begun"], said["ended"]


@dataclass
class Workplace:
    """Kafka, InfluxDB and mosquitto for the whole benchmark, and what belongs to them.

    Parameters
    ----------
    console
        Where progress is told.
    repeats
        Runs of each contender.
    size
        By how much the loads differ from their usual size.
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
        """Let Kafka's JVM compile what producers ask of it, in many small batches.

        A Kafka that has just started takes up to five times the CPU, which on two cores is
        the contenders', and most of all that of whoever comes first.
        """
        if self._kafka_is_warm:
            return
        self.say("warming Kafka up")
        count = self.amount(_WARM_UP_READINGS, least=_LEAST_WARM_UP)
        with self.installation(HEADRACE_KAFKA_PARTITIONS="3") as installation:
            fill_kafka(installation, count, datetime.now(UTC), devices=1000, linger_ms=0)
        self._kafka_is_warm = True

    def close(self) -> None:
        """Stop the servers and delete their data."""
        self.backbone.close()

    def amount(self, usual: int, *, least: int = 1000) -> int:
        """So many readings in this run of the benchmark; with fewer, starting would weigh."""
        return max(least, int(usual * self.size) // 1000 * 1000)

    def say(self, what: str) -> None:
        """Show the current step."""
        self.console.print(what, style="dim", highlight=False)

    @contextmanager
    def installation(self, **env: str) -> Iterator[Installation]:
        """An installation of its own for one run: new topics, buckets and sessions."""
        folder = self.folder / f"run{next(self._numbers)}"
        installation = Installation(self.backbone, folder, env={**_ANY_DEVICE, **env})
        installation.provision()
        try:
            yield installation
        finally:
            installation.close()
            shutil.rmtree(folder, ignore_errors=True)

    def meter(self, **more: int) -> Meter:
        """Measure the servers, and some processes more."""
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
        """A generator that has laid out its readings, and waits to be told to send."""
        command = ["-m", "benchmarks.load.publisher", "--port", str(self.backbone.mqtt_port)]
        command += ["--prefix", installation.name, "--devices", str(devices)]
        command += ["--count", str(count), "--rate", str(rate)]
        with self.program(*command) as process:
            yield Load(process)

    @contextmanager
    def program(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a Python program of the load, and wait until it says that it is ready."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            if not cast("IO[bytes]", process.stdout).readline():
                msg = f"{' '.join(arguments)} ended at once"
                raise RuntimeError(msg)
            yield process
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    @contextmanager
    def reader(self, group: str = "benchmark") -> Iterator[Consumer]:
        """A consumer, to ask for offsets with."""
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
        """Points that InfluxDB has taken since it was started."""
        url = f"http://{LOOPBACK}:{self.backbone.influx_port}/metrics"
        for line in urllib3.request("GET", url).data.decode().splitlines():
            if line.startswith("storage_writer_ok_points_sum"):
                return int(float(line.rpartition(" ")[2]))
        msg = "InfluxDB does not say how many points it took"
        raise CountError(msg)


def partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Partitions of a topic."""
    found = consumer.list_topics(topic, 10).topics[topic].partitions
    return [TopicPartition(topic, number) for number in found]


def records_in(consumer: Consumer, places: list[TopicPartition]) -> int:
    """How many records partitions hold, where no transaction wrote to them."""
    return sum(
        high - low
        for low, high in (consumer.get_watermark_offsets(place, timeout=10) for place in places)
    )


def wait_until(count: Callable[[], int], expected: int, seconds: float) -> float:
    """Wait until a count is reached; returns when that was, on the monotonic clock.

    A look costs the server that is measured some milliseconds, so there are few of them
    until it is nearly there.
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
    """Check that Kafka holds each reading of a load once, and no dead letter.

    Raises
    ------
    CountError
        If one is missing, is there twice, or was rejected.
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
        msg = f"{len(wrong):,} numbers do not add up: {first} is there {times[first]} times"
        raise CountError(msg)
    _check_dead_letters(installation)


def check_stored(installation: Installation, count: int) -> None:
    """Check that InfluxDB holds so many readings, and that there is no dead letter.

    Raises
    ------
    CountError
        If it is otherwise.
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
    """Number of a reading, however a peer wrote it; below 0 for what is not of the load."""
    content: dict[str, Any] = json.loads(value)
    content = content.get("fields", content)
    return int(content["fuel"]) - FIRST_NUMBER
