"""Measures windows through Airflow: delay of live windows, and time to heal a missing day."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec
from confluent_kafka import Consumer

from benchmarks.filling import fill_influx
from benchmarks.meter import Meter
from benchmarks.results import OURS, Measured, Remark, Row, row_without_peer
from benchmarks.workplace import CountError, Workplace
from headrace.models.window import WindowRange, floor, parse_time, rfc3339
from headrace.stages.heal import windows_to_heal
from headrace.storage.kafka_log import read_topic
from tests.support.airflow import AirflowStack
from tests.support.installation import Installation

__all__ = ["NAMES", "run"]

NAMES = ("fresh.p95", "heal.day")

_DEVICES = 1000
_WINDOW = timedelta(minutes=1)
_FRESH_WINDOWS = 15
_HEAL_HOURS = 24
_HEAL_EVERY = timedelta(seconds=15)
_HEAL_SECONDS = 3600.0
#: Maximum delay of the end of the load.
_LOAD_GRACE_SECONDS = 60.0


def run(place: Workplace, wanted: set[str]) -> Iterator[Row]:
    """Start Airflow once and measure both rows."""
    # The hourly reconcile must not heal the windows of the benchmark.
    env = {"HEADRACE_HEAL_HORIZON": "1h"}
    place.report("starting Airflow")
    stack = AirflowStack(place.backbone, place.folder / "airflow", env)
    try:
        stack.start()
        if "heal.day" in wanted:
            yield _heal(place, stack)
        if "fresh.p95" in wanted:
            yield _fresh(place, stack)
    finally:
        stack.close()


def _heal(place: Workplace, stack: AirflowStack) -> Row:
    installation = stack.installation
    hours = max(1, round(_HEAL_HOURS * place.size))
    stop = floor(datetime.now(UTC), timedelta(hours=1)) - timedelta(hours=2)
    windows = WindowRange(stop - timedelta(hours=hours), stop, _WINDOW)
    place.report(f"filling InfluxDB with {hours} h of {_DEVICES:,} generators")
    fill_influx(installation, windows.start, windows.stop, devices=_DEVICES, every=_HEAL_EVERY)
    place.report(f"healing {len(windows):,} windows")
    meter = _meter(place, stack)
    begun = time.monotonic()
    run_id = stack.trigger("reconcile", start=rfc3339(windows.start), stop=rfc3339(windows.stop))
    state = stack.wait_for_run("reconcile", run_id, _HEAL_SECONDS)["state"]
    seconds = time.monotonic() - begun
    if state != "success":
        msg = f"the healing run ended as {state}"
        raise CountError(msg)
    usage = meter.read()
    _check_healed(installation, windows)
    details: dict[str, float] = {"windows": len(windows)}
    took = _task_seconds(stack, run_id)
    details |= {f"{stage}_seconds": spent for stage, spent in took.items()}
    runs = [Measured(OURS, seconds, details)]
    remark = Remark(usage.limit(), if_missed=_of_tasks(took))
    return row_without_peer("heal.day", "s", seconds, runs, remark)


def _of_tasks(took: Mapping[str, float]) -> str:
    """Describe how long the tasks of each stage took."""
    stages = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in took.items() if spent >= 1)
    return f"two pieces ran at a time; the tasks of all pieces took: {stages}"


def _task_seconds(stack: AirflowStack, run_id: str) -> dict[str, float]:
    """Return the total seconds of the tasks of each stage."""
    total: dict[str, float] = defaultdict(float)
    path = f"/dags/{stack.name}_reconcile/dagRuns/{run_id}/taskInstances"
    for task in stack.request("GET", path, limit="1000")["task_instances"]:
        total[task["task_id"].rpartition(".")[2]] += task["duration"] or 0.0
    return dict(total)


def _check_healed(installation: Installation, windows: WindowRange) -> None:
    """Check that consumers have each row once and that nothing is left to heal."""
    rows = Counter(
        (content["window_start"], content["generatorID"])
        for content in map(
            msgspec.json.decode,
            (
                record.value
                for record in read_topic(
                    installation.kafka, installation.profile.topics.downsampled
                )
            ),
        )
        if windows.start <= parse_time(content["window_start"]) < windows.stop
    )
    if len(rows) != _DEVICES * len(windows) or max(rows.values()) > 1:
        msg = f"{len(rows):,} rows, the most frequent {max(rows.values(), default=0)} times"
        raise CountError(msg)
    with installation.pipeline() as pipeline:
        left = windows_to_heal(windows, windows.start, pipeline)
    if left:
        msg = f"still to be healed: {left}"
        raise CountError(msg)


def _fresh(place: Workplace, stack: AirflowStack) -> Row:
    """Measure the delay from a window's end to its rows, with everything running."""
    installation = stack.installation
    wanted = max(2, round(_FRESH_WINDOWS * place.size))
    workers = [installation.worker("bridge"), installation.worker("sink")]
    for worker in workers:
        worker.start()
    # One more window for the start, and one that may be incomplete at the end.
    seconds = (wanted + 2) * 60
    with (
        _Arrivals(installation) as arrivals,
        place.load(installation, _DEVICES * seconds, devices=_DEVICES, rate=_DEVICES) as load,
    ):
        place.report(f"{wanted} live windows of {_DEVICES:,} generators, once a second")
        first = floor(datetime.now(UTC), _WINDOW) + _WINDOW
        meter = _meter(place, stack, bridge=workers[0].pid, sink=workers[1].pid)
        load.tell(_DEVICES * seconds)
        load.finish(seconds + _LOAD_GRACE_SECONDS)
        usage = meter.read({"generator": load.cpu})
        # The last complete window ended during the load, so its rows are due.
        last = first + wanted * _WINDOW
        arrivals.wait_for(_DEVICES, WindowRange(first, last, _WINDOW))
    runs = []
    delays: list[float] = []
    for number in range(wanted):
        start = first + number * _WINDOW
        of_window = arrivals.delays[start]
        delays += of_window
        runs.append(Measured(OURS, _p95(of_window), {"rows": len(of_window)}))
    for worker in workers:
        worker.stop()
    remark = Remark(usage.limit(), if_missed=_of_windows(runs))
    return row_without_peer("fresh.p95", "s", _p95(delays), runs, remark)


def _of_windows(runs: Sequence[Measured]) -> str:
    """Describe the range of the windows' delays; each window has four tasks in sequence."""
    seconds = [run.value for run in runs]
    middle = statistics.median(seconds)
    return (
        f"four tasks in sequence took {min(seconds):.1f} to {max(seconds):.1f} s, "
        f"{middle:.1f} s in the median"
    )


class _Arrivals:
    """A `read_committed` consumer that records when each row arrives."""

    def __init__(self, installation: Installation) -> None:
        self._consumer: Consumer = installation.kafka.consumer(
            f"benchmark-{installation.name}",
            auto_offset_reset="latest",
            fetch_wait_max_ms=10,
            enable_partition_eof=False,
        )
        self._topic = installation.profile.topics.downsampled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        #: Seconds from a window's end to the arrival of each row, by window.
        self.delays: dict[datetime, list[float]] = defaultdict(list)

    def __enter__(self) -> Self:
        self._consumer.subscribe([self._topic])
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def wait_for(self, rows: int, windows: WindowRange) -> None:
        """Wait until every window of a range has this number of rows.

        Raises
        ------
        CountError
            If a window has fewer after two minutes, or has more.
        """
        deadline = time.monotonic() + 120
        while any(len(self.delays[start]) < rows for start in windows.starts()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        wrong = {
            rfc3339(start): len(self.delays[start])
            for start in windows.starts()
            if len(self.delays[start]) != rows
        }
        if wrong:
            msg = f"windows that do not have {rows:,} rows: {wrong}"
            raise CountError(msg)

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1000, 0.1):
                if message.error() is None:
                    content = msgspec.json.decode(message.value() or b"")
                    now = datetime.now(UTC)
                    if content["revision"] == 0:
                        delay = now - parse_time(content["window_end"])
                        start = parse_time(content["window_start"])
                        self.delays[start].append(delay.total_seconds())


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _meter(place: Workplace, stack: AirflowStack, **more: int) -> Meter:
    """Measure the servers and Airflow's long-lived processes."""
    airflow = {f"airflow {name}": process.pid for name, process in stack.processes.items()}
    return place.meter(**airflow, **more)
