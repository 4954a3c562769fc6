"""Missed, unsettled and changed windows are found and computed again."""

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
from headrace.stages.ranges import PIECE
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for
from tests.support.ranges import MINUTE, hours_ago, windows

HOURS_OFFLINE = 3
OFFLINE = HOURS_OFFLINE * 60


def to_heal(installation: Installation, looked_at: WindowRange) -> list[WindowRange]:
    """Return the windows that a reconcile run would compute."""
    with installation.pipeline() as pipeline:
        return windows_to_heal(looked_at, installation.settings.installed_at, pipeline)


def starts(pieces: list[WindowRange]) -> list[datetime]:
    return [start for piece in pieces for start in piece.starts()]


def revisions(installation: Installation, device: str) -> dict[str, list[int]]:
    """Return the revisions of each window of a device, in the order of a consumer."""
    found: dict[str, list[int]] = {}
    for row in installation.rows():
        if row["generatorID"] == device:
            found.setdefault(row["window_start"], []).append(row["revision"])
    return found


def test_readings_buffered_for_hours_correct_their_windows_once(
    install: Callable[..., Installation],
) -> None:
    """Late readings arrive by MQTT; each window that they change is corrected once, no other.

    One device was online all the time. One reported at the start of each window and lost
    the rest. One was offline all the time.
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

    # The pieces are one hour long and contain only changed windows.
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
    # Each changed window of the two devices with late readings, and no other window.
    assert len(installation.rows()) == before + 2 * OFFLINE
    for row in installation.rows():
        if row["window_start"] in changed and row["fuel"] == 450:
            expected = 2 if row["generatorID"] == "patchy" else 1
            assert (row["readings"], row["alarm"]) == (expected, "refuel")
    # The published silence is withdrawn.
    told = [
        (change["generatorID"], change["state"], change["revision"])
        for record in installation.records(installation.profile.topics.alarms)
        if (change := json.loads(record.value))["rule"] == "silent"
    ]
    # No shorter silence was published in between: its windows had late readings.
    assert Counter(told) == {
        ("away", "raised", 0): 1,
        ("away", "cleared", 0): 1,
        ("away", "withdrawn", 1): 2,
    }

    assert to_heal(installation, all_windows) == []
    again = installation.compute(all_windows)
    assert (again.new, again.corrected, again.changes) == (0, 0, 0)


def test_missed_unsettled_and_unpublished_windows_are_healed(
    install: Callable[..., Installation],
) -> None:
    begin = hours_ago(3)
    installation = install(HEADRACE_INSTALLED_AT=rfc3339(begin + 10 * MINUTE))
    all_windows = windows(begin, 120)
    at = [begin + minute * MINUTE for minute in range(120)]
    # Two windows are empty: one before the installation date and one after it.
    installation.store(*(("generator1", at[minute], {}) for minute in range(119) if minute != 5))
    installation.compute(all_windows)
    # This window is computed but unsettled,
    installation.compute(windows(at[30], 1), settled=False)
    with installation.pipeline() as pipeline:
        # and this one was never published.
        downsample(windows(at[31], 1), pipeline, settled=True, run="test/3")
    # No markers, as if never computed. The first window is before the installation date.
    with installation.admin_influx() as influx:
        for start in (at[5], at[40], at[119]):
            influx.delete(installation.profile.buckets.quality, start, start + MINUTE, "window")
    found = to_heal(installation, all_windows)
    assert found == [windows(at[30], 11), windows(at[119], 1)]
    for piece in found:
        installation.compute(piece)
    assert to_heal(installation, all_windows) == []
    assert set(Counter(row["window_start"] for row in installation.rows()).values()) == {1}


def test_reconcile_leaves_live_windows_alone(installation: Installation) -> None:
    now = datetime(2026, 6, 1, 12, 30, 20, tzinfo=UTC)
    begin = now - timedelta(minutes=5)
    with installation.pipeline() as pipeline:
        found = expected_windows(begin, now, timedelta(seconds=30), pipeline)
        none = expected_windows(now, now, timedelta(0), pipeline)
    assert found == windows(datetime(2026, 6, 1, 12, 26, tzinfo=UTC), 3)
    assert none is None


def test_rows_are_kept_if_their_raw_readings_are_deleted(
    install: Callable[..., Installation],
) -> None:
    """A range with partly deleted raw readings is not computed at all."""
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
        before = pipeline.store.markers(range_)
        with pytest.raises(RawDataGoneError, match=r"the raw readings of .* are gone"):
            downsample(range_, pipeline, settled=True, run="test/2")
        assert pipeline.store.markers(range_) == before
        stored = pipeline.store.rows(range_)
    assert len(stored) == len(kept) == len(range_)
    # Reconcile does not request the range, whatever raw readings remain.
    assert to_heal(installation, windows(begin, 30)) == []


def test_a_day_is_healed_in_24_pieces() -> None:
    day = windows(datetime(2026, 6, 1, tzinfo=UTC), 1440)
    assert [len(piece) for piece in day.pieces(PIECE)] == [60] * 24
    # A piece with every second window costs as much as a full piece.
    assert len(pieces_of(list(day.starts())[::2], MINUTE, PIECE)) == 24
