"""The difference between stored and published records, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from headrace.models.alarm import AlarmState
from headrace.models.alarm_derivation import AlarmHistory, DeviceHistory
from headrace.models.difference import Difference, Published, difference
from headrace.models.row import READINGS, PublishedRow, StoredRow, row_content
from headrace.models.window import WindowRange
from headrace.profile import Profile

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WINDOWS = WindowRange(NOON, NOON + 3 * MINUTE, MINUTE)


def row(device: str, minute: int = 0, fuel: float = 700) -> StoredRow:
    values = {"fuel": fuel, "alarm": "refuel" if fuel < 500 else "no action", READINGS: 2}
    return StoredRow(device, NOON + minute * MINUTE, values)


def history(*rows: StoredRow) -> AlarmHistory:
    """Return the history of devices that have only these rows."""
    devices = {item.device for item in rows}
    return AlarmHistory(
        WINDOWS,
        tuple(
            DeviceHistory(
                device,
                [item.start for item in rows if item.device == device],
                verdicts={
                    "fuel": [
                        (item.start, item.values["alarm"]) for item in rows if item.device == device
                    ]
                },
            )
            for device in devices
        ),
        computed=set(WINDOWS.starts()),
    )


def compared(profile: Profile, published: Published, *rows: StoredRow) -> Difference:
    return difference(WINDOWS, rows, history(*rows), published, profile)


def test_without_published_rows_everything_is_new(profile: Profile) -> None:
    found = compared(profile, Published(), row("g1"), row("g2", 1, fuel=400))
    assert [(item.key, item.revision) for item in found.rows] == [
        (("g1", NOON), 0),
        (("g2", NOON + MINUTE), 0),
    ]
    (change,) = found.changes.news
    assert (change.change.device, change.change.state, change.revision) == (
        "g2",
        AlarmState.RAISED,
        0,
    )
    assert found.counts == {NOON: 1, NOON + MINUTE: 1, NOON + 2 * MINUTE: 0}
    assert found.revisions == {NOON: 0, NOON + MINUTE: 0}


def test_published_rows_are_not_a_difference(profile: Profile) -> None:
    rows = row("g1"), row("g2", 1, fuel=400)
    first = compared(profile, Published(), *rows)
    again = compared(profile, Published().plus(first), *rows)
    assert (again.rows, again.changes.news) == ((), ())
    assert again.changes.confirmed == first.changes.news
    assert (again.counts, again.revisions) == (first.counts, first.revisions)


def test_only_changed_rows_are_corrected(profile: Profile) -> None:
    published = Published().plus(compared(profile, Published(), row("g1"), row("g2")))
    found = compared(profile, published, row("g1", fuel=400), row("g2"))
    (corrected,) = found.rows
    assert (corrected.key, corrected.revision, corrected.content["fuel"]) == (("g1", NOON), 1, 400)
    assert found.revisions == {NOON: 1}
    assert [item.change.device for item in found.changes.news] == ["g1"]


def test_an_alarm_without_a_cause_is_withdrawn(profile: Profile) -> None:
    published = Published().plus(compared(profile, Published(), row("g1", fuel=400)))
    found = compared(profile, published, row("g1"))
    (change,) = found.changes.news
    assert (change.change.state, change.revision) == (AlarmState.WITHDRAWN, 1)


def test_rows_of_other_windows_are_ignored(profile: Profile) -> None:
    """Records read from the topic can be outside the range."""
    before = row("g1", -1)
    known = PublishedRow(before.key, 7, row_content(profile, before))
    found = compared(profile, Published({before.key: known}), row("g1"))
    assert found.revisions == {NOON: 0}
    assert before.start not in found.counts


def test_records_are_stamped_after_the_last_affected_window(profile: Profile) -> None:
    found = compared(profile, Published(), row("g1", fuel=400))
    assert found.not_before == WINDOWS.stop
    (change,) = found.changes.news
    later = replace(change.change, window_start=WINDOWS.stop + 4 * MINUTE)
    changes = replace(found.changes, news=(replace(change, change=later),))
    assert replace(found, changes=changes).not_before == WINDOWS.stop + 5 * MINUTE


levels = st.dictionaries(
    st.tuples(st.sampled_from(["g1", "g2", "g3"]), st.integers(0, 2)), st.sampled_from([400, 700])
)


@given(first=levels, second=levels)
def test_publishing_the_difference_leaves_none(
    profile: Profile,
    first: Mapping[tuple[str, int], float],
    second: Mapping[tuple[str, int], float],
) -> None:
    published = Published()
    for fuel in (first, second):
        # Stored rows stay; only their values change.
        rows = [row(*key, value) for key, value in sorted({**first, **fuel}.items())]
        found = compared(profile, published, *rows)
        published = published.plus(found)
        again = compared(profile, published, *rows)
        assert (again.rows, again.changes.news) == ((), ())
        assert {item.key: item.content for item in published.rows.values()} == {
            item.key: row_content(profile, item) for item in rows
        }
