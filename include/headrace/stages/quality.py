"""Quality checks of readings, rows and published rows against the profile."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from headrace.models.event_time import TIME_HEADER, stamp_of
from headrace.models.marker import Marker
from headrace.models.quality import CheckResult, judge
from headrace.models.window import WindowRange
from headrace.recovery.letters import count_rejected
from headrace.stages.pipeline import Pipeline
from headrace.storage.kafka import Record
from headrace.storage.kafka_log import offsets_at, read_topic, reader

__all__ = ["check_quality", "judged_windows", "write_results"]

#: Number of the newest records of each partition that the clock check reads.
_CLOCK_SAMPLE = 2000


@dataclass(frozen=True)
class _Devices:
    """The known devices, and by device: windows with a row in the range, and readings."""

    known: frozenset[str]
    windows: dict[str, int]
    readings: dict[str, int]


def check_quality(
    windows: WindowRange, installed_at: datetime, max_drift_seconds: float, pipeline: Pipeline
) -> list[CheckResult]:
    """Run every check over a range.

    Uncomputed and unsettled windows, and the first window of the installation, are counted but
    not checked, because they will be healed. Dead letters and clocks are checked by the records
    that arrived during the range, everything else by event time.

    Parameters
    ----------
    windows
        The range.
    installed_at
        Installation date.
    max_drift_seconds
        A clock with a larger error counts as drifting.
    pipeline
        Profile and clients.
    """
    markers = pipeline.store.markers(windows)
    judged = judged_windows(windows, installed_at, markers)
    devices = _devices(windows, pipeline)
    note = f"{len(judged)} of {len(windows)} windows judged"
    nothing = not judged
    return [
        _completeness(devices, pipeline, note, nothing=nothing),
        _readings(devices, pipeline, nothing=nothing),
        _out_of_range(windows, devices, pipeline),
        _freshness(windows, pipeline, nothing=nothing),
        _clock_drift(windows, max_drift_seconds, pipeline),
        _dead_letters(windows, devices, pipeline),
        _adds_up(windows, judged, markers, pipeline),
    ]


def judged_windows(
    windows: WindowRange, installed_at: datetime, markers: dict[datetime, Marker]
) -> list[datetime]:
    """Return the starts of settled and published windows, without the first one."""
    return [
        start
        for start in windows.starts()
        if start > installed_at
        and start in markers
        and markers[start].settled
        and markers[start].published >= 0
    ]


def write_results(
    windows: WindowRange, results: Collection[CheckResult], pipeline: Pipeline
) -> None:
    """Store the results of the checks of a range."""
    pipeline.quality.record_checks(windows, results)


def _devices(windows: WindowRange, pipeline: Pipeline) -> _Devices:
    since = windows.stop - pipeline.profile.silent.known
    seen = pipeline.quality.windows_with_rows(since, windows.stop)
    totals = pipeline.quality.totals_by_device(windows)
    return _Devices(
        # As for silence, an id that appeared once is not a known device.
        frozenset(device for device, number in seen.items() if number > 1),
        totals.windows,
        totals.readings,
    )


def _completeness(
    devices: _Devices, pipeline: Pipeline, note: str, *, nothing: bool
) -> CheckResult:
    absent = sorted(devices.known - set(devices.windows))
    share = None if nothing or not devices.known else 1 - len(absent) / len(devices.known)
    detail = f"{len(absent)} of {len(devices.known)} known devices did not report ({note})"
    levels = pipeline.profile.quality.completeness
    return judge("completeness", share, levels, detail, low_is_bad=True, devices=absent)


def _readings(devices: _Devices, pipeline: Pipeline, *, nothing: bool) -> CheckResult:
    profile = pipeline.profile
    promised = profile.window / profile.interval
    shares = {
        device: min(1.0, devices.readings.get(device, 0) / (present * promised))
        for device, present in devices.windows.items()
    }
    share = sum(shares.values()) / len(shares) if shares and not nothing else None
    levels = profile.quality.readings
    few = sorted(device for device, own in shares.items() if own < levels.fail)
    detail = f"{len(few)} of {len(shares)} devices sent far fewer readings than expected"
    return judge("readings", share, levels, detail, low_is_bad=True, devices=few)


def _out_of_range(windows: WindowRange, devices: _Devices, pipeline: Pipeline) -> CheckResult:
    profile = pipeline.profile
    outside: dict[str, int] = {}
    by_field: list[str] = []
    for name, spec in profile.fields.items():
        found = pipeline.quality.out_of_range(windows, name, *spec.range)
        if found:
            by_field.append(f"{name} {sum(found.values())}")
        for device, number in found.items():
            outside[device] = outside.get(device, 0) + number
    values = sum(devices.readings.values()) * len(profile.fields)
    share = sum(outside.values()) / values if values else None
    detail = f"{sum(outside.values())} of {values} values outside their range"
    detail += f" ({', '.join(by_field)})" if by_field else ""
    levels = profile.quality.out_of_range
    return judge("out_of_range", share, levels, detail, low_is_bad=False, devices=sorted(outside))


def _freshness(windows: WindowRange, pipeline: Pipeline, *, nothing: bool) -> CheckResult:
    profile = pipeline.profile
    since = windows.start - profile.silent.known
    newest = pipeline.quality.newest_reading(since, windows.stop)
    age = (windows.stop - newest).total_seconds() if newest else None
    detail = "no readings" if age is None else f"newest reading {age:.1f} s before the end"
    return judge(
        "freshness",
        None if nothing else age,
        profile.quality.freshness,
        detail,
        low_is_bad=False,
    )


def _clock_drift(windows: WindowRange, max_drift_seconds: float, pipeline: Pipeline) -> CheckResult:
    """Check the clocks of devices whose readings have a time.

    Buffered readings are late although the clock is right, so the smallest difference of each
    device is used.
    """
    least: dict[str, float] = {}
    for record in _sample(windows, pipeline):
        taken, made = (stamp_of(record.headers.get(name)) for name in ("taken_ns", TIME_HEADER))
        if taken is None or made is None:
            # The reading has no `time`, or the record is foreign.
            continue
        off = abs(taken - made) / 1e9
        device = record.key.decode("utf-8", "replace")
        least[device] = min(off, least.get(device, off))
    drifting = sorted(device for device, off in least.items() if off > max_drift_seconds)
    share = len(drifting) / len(least) if least else None
    detail = f"{len(drifting)} of {len(least)} devices that send `time` have a wrong clock"
    levels = pipeline.profile.quality.clock_drift
    return judge("clock_drift", share, levels, detail, low_is_bad=False, devices=drifting)


def _sample(windows: WindowRange, pipeline: Pipeline) -> Iterable[Record]:
    """Read the newest of the raw records that arrived during the range."""
    topic = pipeline.profile.topics.raw
    with reader(pipeline.kafka) as consumer:
        begin = offsets_at(consumer, topic, windows.start)
        end = offsets_at(consumer, topic, windows.stop)
    start = {part: max(begin[part], stop - _CLOCK_SAMPLE) for part, stop in end.items()}
    return read_topic(pipeline.kafka, topic, start, end)


def _dead_letters(windows: WindowRange, devices: _Devices, pipeline: Pipeline) -> CheckResult:
    rejected = count_rejected(pipeline.kafka, pipeline.profile, windows.start, windows.stop)
    arrived = rejected + sum(devices.readings.values())
    share = rejected / arrived if arrived else None
    detail = f"{rejected} of {arrived} readings were rejected"
    levels = pipeline.profile.quality.dead_letters
    return judge("dead_letters", share, levels, detail, low_is_bad=False)


def _adds_up(
    windows: WindowRange,
    judged: list[datetime],
    markers: dict[datetime, Marker],
    pipeline: Pipeline,
) -> CheckResult:
    """Check that raw readings, downsampled rows and published rows agree in each window."""
    raw = pipeline.store.count_raw(windows)
    stored = pipeline.quality.totals_by_window(windows)
    late, wrong = 0, 0
    for start in judged:
        marker = markers[start]
        agree = marker.rows == stored.rows.get(start, 0) == marker.published
        if raw.get(start, 0) > marker.readings:
            # Not an error, because the next reconcile run includes them.
            late += 1
        elif raw.get(start, 0) < marker.readings or not agree:
            wrong += 1
    detail = f"{wrong} of {len(judged)} windows do not add up, {late} wait for late readings"
    levels = pipeline.profile.quality.adds_up
    return judge("adds_up", wrong if judged else None, levels, detail, low_is_bad=False)
