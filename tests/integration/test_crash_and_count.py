"""Kill every process repeatedly, then count every reading."""

from __future__ import annotations

import os
import random

import pytest

from tests.support.chaos import run_chaos
from tests.support.installation import Installation
from tests.support.streams import Stream, count_stream


def report(streams: list[Stream], installation: Installation) -> list[str]:
    """Count the streams; print the counts and return the errors."""
    wrong = []
    for stream in streams:
        for place, count in zip(
            ("Kafka", "InfluxDB"), count_stream(stream, installation), strict=True
        ):
            line = (
                f"{stream.name:6} QoS {stream.qos} in {place:8}: {count.acknowledged} sent, "
                f"{len(count.lost)} lost, {len(count.twice)} twice"
            )
            print(line)  # noqa: T201 - what the test measured
            if stream.qos == 1 and (count.lost or count.twice):
                wrong.append(f"{line}: {sorted(count.lost)[:9]} {sorted(count.twice)[:9]}")
    return wrong


def seed() -> int:
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))


def test_killed_processes_lose_and_duplicate_nothing(installation: Installation) -> None:
    streams = run_chaos(installation, seconds=25, seed=seed())
    assert all(len(stream.acknowledged) > 100 for stream in streams)
    assert report(streams, installation) == []


@pytest.mark.long
def test_killed_processes_lose_nothing_over_a_long_run(installation: Installation) -> None:
    minutes = float(os.environ.get("CHAOS_MINUTES") or 5)
    streams = run_chaos(installation, seconds=minutes * 60, seed=seed())
    assert report(streams, installation) == []
