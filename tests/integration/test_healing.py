"""Windows that were missed, unsettled, or changed by late readings are found and made right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from headrace.errors import RawDataGoneError
from headrace.models.window import WindowRange, pieces_of, rfc3339
from headrace.stages.downsample import downsample
from headrace.stages.heal import expected_windows, windows_to_heal
from headrace.stages.markers import read_markers
from headrace.stages.ranges import PIECE
from headrace.stages.republish import stored_rows
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, hours_ago, windows

HOURS_OFFLINE = 3
OFFLINE = HOURS_OFFLINE * 60


def to_heal(installation: Installation, looked_at: WindowRange) -> list[WindowRange]:
    """What the reconcile would compute."""
    with installation.pipeline() as pipeline:
        return windows_to_heal(looked_at, installation.settings.installed_at, pipeline)


def starts(pieces: list[WindowRange]) -> list[datetime]:
    return [start for piece in pieces for start in piece.starts()]


def revisions(installation: Installation, device: str) -> dict[str, list[int]]:
    """Revisions of each window of a device, in the order in which a consumer gets them."""
    found: dict[str, list[int]] = {}
    for row in installation.rows():
        if row["generatorID"] == device:
            found.setdefault(row["window_start"], []).append(row["revision"])
    return found


def test_a_device_that_was_offline_for_hours(install: Callable[..., Installation]) -> None:
    """Its buffer arrives by MQTT; the windows it changes are corrected once, no other one.

    One device was there all the time, one reported at the start of each window and lost
    what came after, one was away altogether.
    """
    begin = hours_ago(HOURS_OFFLINE + 0.25)
    all_windows = windows(begin, OFFLINE + 10)
    offline = windows(begin + 5 * MINUTE, OFFLINE)
    installation = install(HEADRACE_INSTALLED_AT=rfc3339(begin))
    installation.store(
        *(("there", start, {}) for start in all_windows.starts()),
        *(("patchy", start, {}) for start in all_windows.starts()),
        *(("away", start, {}) for start in {*all_windows.starts()} - {*offline.starts()}),
    )
    installation.compute(all_windows)
    assert to_heal(installation, all_windows) == []
    before = len(installation.rows())

    workers = [installation.worker("bridge"), installation.worker("sink")]
    workers[0].start()
    workers[1].launch()
    late = timedelta(seconds=40)
    with Publisher(installation.backbone.mqtt_port) as network:
        network.send_all(
            [
                (
                    f"{installation.name}/{device}",
                    reading(device, fuel=450, time=rfc3339(start + late)),
                )
                for start in offline.starts()
                for device in ("patchy", "away")
            ]
        )
    wait_for(lambda: installation.metric(installation.sink_port, "headrace_sink_written") >= 360)

    # In pieces of an hour, and nothing but what has changed.
    found = to_heal(installation, all_windows)
    assert [len(piece) for piece in found] == [PIECE] * HOURS_OFFLINE
    assert starts(found) == list(offline.starts())
    for piece in found:
        installation.compute(piece)

    changed = {rfc3339(start) for start in offline.starts()}
    assert all(known == [0] for known in revisions(installation, "there").values())
    for window, known in revisions(installation, "patchy").items():
        assert known == ([0, 1] if window in changed else [0])
    assert revisions(installation, "away").keys() >= changed
    assert all(known == [0] for known in revisions(installation, "away").values())
    # Each changed window of the two that had lost something, and nothing else.
    assert len(installation.rows()) == before + 2 * OFFLINE
    for row in installation.rows():
        if row["window_start"] in changed and row["fuel"] == 450:
            expected = 2 if row["generatorID"] == "patchy" else 1
            assert (row["readings"], row["alarm"]) == (expected, "refuel")
    # The silence that consumers were told of never was.
    told = [
        (change["generatorID"], change["state"], change["revision"])
        for record in installation.records(installation.profile.topics.alarms)
        if (change := json.loads(record.value))["rule"] == "silent"
    ]
    # And no shorter silence was published in between: its windows had late readings.
    assert Counter(told) == {
        ("away", "raised", 0): 1,
        ("away", "cleared", 0): 1,
        ("away", "withdrawn", 1): 2,
    }

    assert to_heal(installation, all_windows) == []
    again = installation.compute(all_windows)
    assert (again.new, again.corrected, again.changes) == (0, 0, 0)


def test_missed_unsettled_and_unpublished_windows(install: Callable[..., Installation]) -> None:
    begin = hours_ago(3)
    installation = install(HEADRACE_INSTALLED_AT=rfc3339(begin + 10 * MINUTE))
    all_windows = windows(begin, 120)
    at = [begin + minute * MINUTE for minute in range(120)]
    # Two windows are empty, one before the installation and one after it.
    installation.store(*(("generator1", at[minute], {}) for minute in range(119) if minute != 5))
    installation.compute(all_windows)
    # Left unsettled,
    installation.compute(windows(at[30], 1), settled=False)
    with installation.pipeline() as pipeline:
        # and ended before it was published.
        downsample(windows(at[31], 1), pipeline, settled=True, run="test/3")
        # As if they had never been computed. Nobody expects the first of them.
        quality = pipeline.profile.buckets.quality
        for start in (at[5], at[40], at[119]):
            pipeline.influx.delete(quality, start, start + MINUTE, "window")
    found = to_heal(installation, all_windows)
    assert found == [windows(at[30], 11), windows(at[119], 1)]
    for piece in found:
        installation.compute(piece)
    assert to_heal(installation, all_windows) == []
    assert set(Counter(row["window_start"] for row in installation.rows()).values()) == {1}


def test_what_is_expected_leaves_live_windows_alone(installation: Installation) -> None:
    now = datetime(2026, 6, 1, 12, 30, 20, tzinfo=UTC)
    begin = now - timedelta(minutes=5)
    with installation.pipeline() as pipeline:
        found = expected_windows(begin, now, timedelta(seconds=30), pipeline)
        none = expected_windows(now, now, timedelta(0), pipeline)
    assert found == windows(datetime(2026, 6, 1, 12, 26, tzinfo=UTC), 3)
    assert none is None


def test_a_range_whose_raw_data_are_gone_keeps_its_rows(
    install: Callable[..., Installation],
) -> None:
    """Not even partly: what is still there of the range is no reason to write the rest."""
    begin = hours_ago(2)
    range_ = windows(begin, 90)
    installation = install()
    installation.store(*(("generator1", start, {}) for start in range_.starts()))
    installation.compute(range_)
    kept = installation.rows()
    with installation.admin_influx() as influx:
        raw = installation.profile.buckets.raw
        influx.delete(raw, begin, hours_ago(1), installation.profile.measurement)
    installation.environment["HEADRACE_RAW_RETENTION"] = "1h"
    installation.environment["HEADRACE_HEAL_HORIZON"] = "1h"
    with installation.pipeline() as pipeline:
        before = read_markers(range_, pipeline)
        with pytest.raises(RawDataGoneError, match=r"the raw readings of .* are gone"):
            downsample(range_, pipeline, settled=True, run="test/2")
        assert read_markers(range_, pipeline) == before
        stored = stored_rows(range_, pipeline)
    assert len(stored) == len(kept) == len(range_)
    # Nor does the reconcile ask for it, whatever it finds in what is left.
    assert to_heal(installation, windows(begin, 30)) == []


def test_a_day_is_healed_in_twenty_four_pieces() -> None:
    day = windows(datetime(2026, 6, 1, tzinfo=UTC), 1440)
    assert [len(piece) for piece in day.pieces(PIECE)] == [60] * 24
    # Every second window costs as much as all of them.
    assert len(pieces_of(list(day.starts())[::2], MINUTE, PIECE)) == 24
