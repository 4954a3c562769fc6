"""Consumers see whole windows and each row and revision once, despite kills and parallel runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from headrace.errors import TransientError
from headrace.models.window import WindowRange, rfc3339
from headrace.stages.alarm_record import read_standing
from headrace.stages.alarms import evaluate_alarms
from headrace.stages.downsample import downsample
from headrace.stages.republish import Republished
from tests.support.dying import STEPS
from tests.support.installation import PROJECT, Installation
from tests.support.ranges import MINUTE, hours_ago, windows

DEVICES = [f"generator{number}" for number in range(1, 6)]


def compute(installation: Installation, range_: WindowRange, run: str) -> None:
    """Run the stages before republishing."""
    with installation.pipeline() as pipeline:
        downsample(range_, pipeline, settled=True, run=run)
        evaluate_alarms(range_, pipeline)


def publish(installation: Installation, range_: WindowRange, run: str) -> Republished:
    with installation.pipeline() as pipeline:
        return installation.publish(range_, pipeline, run=run)


def die(installation: Installation, step: str, range_: WindowRange, run: str) -> None:
    """Republish in another process, which is killed at this step."""
    arguments = [step, json.dumps(installation.environment)]
    arguments += [rfc3339(range_.start), rfc3339(range_.stop), run]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.dying", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -9, done.stderr


def revisions(installation: Installation) -> Counter[tuple[str, str, int]]:
    return Counter(
        (row["generatorID"], row["window_start"], row["revision"]) for row in installation.rows()
    )


def each(range_: WindowRange, revision: int) -> Iterator[tuple[str, str, int]]:
    return ((device, rfc3339(start), revision) for device in DEVICES for start in range_.starts())


@pytest.fixture
def filled(installation: Installation) -> tuple[Installation, WindowRange]:
    """Three windows with readings of five devices, not computed yet."""
    range_ = windows(hours_ago(1), 3)
    installation.store(
        *((device, start, {"fuel": 400}) for device in DEVICES for start in range_.starts())
    )
    return installation, range_


#: The two steps that decide whether anything is published; all steps together take long.
_TELLING = ("before commit_transaction 1", "before write 1")


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=() if step in _TELLING else pytest.mark.long, id=step)
        for step in STEPS
    ],
)
def test_a_publisher_killed_at_any_step_publishes_once(
    filled: tuple[Installation, WindowRange], step: str
) -> None:
    installation, range_ = filled
    compute(installation, range_, "test/1")
    committed = STEPS.index(step) >= STEPS.index("after commit_transaction 1")
    whole = Counter(each(range_, 0))

    die(installation, step, range_, "test/1")
    assert revisions(installation) == (whole if committed else Counter())
    if not committed:
        # The record shows no alarm that was not published.
        with installation.pipeline() as pipeline:
            assert read_standing(datetime.now(UTC), pipeline) == []
    begun = time.monotonic()
    again = publish(installation, range_, "test/1")
    # The next attempt does not wait for the killed publisher's transaction to time out.
    assert time.monotonic() - begun < 10
    assert again.new == (0 if committed else len(whole))
    assert revisions(installation) == whole
    changes = [
        json.loads(record.value)
        for record in installation.records(installation.profile.topics.alarms)
    ]
    assert Counter((change["generatorID"], change["rule"]) for change in changes) == Counter(
        (device, "fuel") for device in DEVICES
    )
    with installation.pipeline() as pipeline:
        markers = pipeline.store.markers(range_)
        standing = read_standing(datetime.now(UTC), pipeline)
    assert {marker.published for marker in markers.values()} == {len(DEVICES)}
    # The record agrees with the consumers, even if it was not written the first time.
    assert {change.device for change in standing} == set(DEVICES)


@pytest.mark.long
def test_a_publisher_killed_during_a_correction_publishes_once(
    filled: tuple[Installation, WindowRange],
) -> None:
    """A committed part of a correction is not published again."""
    installation, range_ = filled
    installation.compute(range_)
    late = timedelta(seconds=30)
    installation.store(
        *((device, start + late, {"fuel": 300}) for device in DEVICES for start in range_.starts())
    )
    compute(installation, range_, "test/1")
    for step in _TELLING:
        die(installation, step, range_, "test/1")
    assert publish(installation, range_, "test/1").corrected == 0
    assert revisions(installation) == Counter([*each(range_, 0), *each(range_, 1)])


def test_a_live_run_and_a_backfill_can_run_at_once(
    filled: tuple[Installation, WindowRange],
) -> None:
    """Two runs compute and publish the same windows at the same time, repeatedly."""
    installation, range_ = filled

    def whole_run(run: str) -> None:
        compute(installation, range_, run)
        for _ in range(20):
            try:
                publish(installation, range_, run)
            except TransientError:
                # The other run has taken over. Airflow would retry, and so does this test.
                continue
            return
        pytest.fail(f"{run} never got through")

    with ThreadPoolExecutor(2) as pool:
        for turn in range(3):
            late = timedelta(seconds=turn + 1)
            installation.store(
                *(
                    (device, start + late, {"fuel": 300 + turn})
                    for device in DEVICES
                    for start in range_.starts()
                )
            )
            runs = [pool.submit(whole_run, f"{name}/{turn}") for name in ("live", "backfill")]
            for run in runs:
                run.result()
    found = revisions(installation)
    assert set(found.values()) == {1}
    assert found == Counter(key for turn in range(3) for key in each(range_, turn))
    for row in installation.rows():
        assert row["readings"] == 2 + row["revision"]
        assert row["fuel"] == 300 + row["revision"]


def test_rows_without_levels_are_left_to_the_run_that_computes_them(
    filled: tuple[Installation, WindowRange],
) -> None:
    """Rows without levels, whose run has not evaluated the alarms yet, are not published."""
    installation, range_ = filled
    compute(installation, range_, "backfill/1")
    between = windows(range_.start + MINUTE, 1)
    with installation.pipeline() as pipeline:
        downsample(between, pipeline, settled=True, run="live/1")
    assert publish(installation, range_, "backfill/1").left == 1
    assert rfc3339(between.start) not in {row["window_start"] for row in installation.rows()}
    with installation.pipeline() as pipeline:
        evaluate_alarms(between, pipeline)
    publish(installation, between, "live/1")
    assert revisions(installation) == Counter(each(range_, 0))
    assert {row["alarm"] for row in installation.rows()} == {"refuel"}
