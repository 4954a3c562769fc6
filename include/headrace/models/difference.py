"""The difference between the stored and the published state of a range of windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headrace.models.alarm import ChangeKey, PublishedChange
from headrace.models.alarm_derivation import AlarmHistory, Comparison, compare_changes
from headrace.models.row import PublishedRow, RowKey, StoredRow, row_content
from headrace.models.window import WindowRange
from headrace.profile import Profile

__all__ = ["Difference", "Published", "difference"]


@dataclass(frozen=True)
class Published:
    """The newest revision of each published row and alarm change of a range."""

    rows: Mapping[RowKey, PublishedRow] = field(default_factory=dict)
    changes: Mapping[ChangeKey, PublishedChange] = field(default_factory=dict)

    def plus(self, found: Difference) -> Published:
        """Return the published state after publishing a difference."""
        return Published(
            {**self.rows, **{row.key: row for row in found.rows}},
            {**self.changes, **{item.change.key: item for item in found.changes.news}},
        )


@dataclass(frozen=True)
class Difference:
    """The records to publish for a range, and the values to store afterwards.

    Parameters
    ----------
    windows
        The range.
    rows
        Rows to publish: new ones with revision 0, and corrections.
    changes
        Alarm changes to publish, and published ones that are confirmed.
    counts
        Number of rows by window, including published ones.
    revisions
        Highest revision of the rows, by window.
    """

    windows: WindowRange
    rows: tuple[PublishedRow, ...]
    changes: Comparison
    counts: Mapping[datetime, int]
    revisions: Mapping[datetime, int]

    @property
    def not_before(self) -> datetime:
        """End of the last affected window.

        An alarm change can affect a later window than those of the range.
        """
        length = self.windows.length
        ends = (item.change.window_start + length for item in self.changes.news)
        return max([self.windows.stop, *ends])


def difference(
    windows: WindowRange,
    rows: Collection[StoredRow],
    history: AlarmHistory,
    published: Published,
    profile: Profile,
) -> Difference:
    """Compare the stored with the published state of a range.

    Parameters
    ----------
    windows
        The range.
    rows
        Its stored rows.
    history
        Rows from which the alarm changes follow.
    published
        Published records of the range and of later windows.
    profile
        Rules, fields and tags.
    """
    counts: Counter[datetime] = Counter(dict.fromkeys(windows.starts(), 0))
    counts.update(row.start for row in rows)
    news = tuple(_news(rows, published.rows, profile))
    known = (row for row in published.rows.values() if row.key[1] in counts)
    return Difference(
        windows,
        news,
        compare_changes(history, published.changes, profile),
        counts,
        _revisions([*known, *news]),
    )


def _news(
    rows: Iterable[StoredRow], published: Mapping[RowKey, PublishedRow], profile: Profile
) -> Iterator[PublishedRow]:
    for row in rows:
        content = row_content(profile, row)
        known = published.get(row.key)
        if known is None:
            yield PublishedRow(row.key, 0, content)
        elif known.content != content:
            yield PublishedRow(row.key, known.revision + 1, content)


def _revisions(rows: Iterable[PublishedRow]) -> dict[datetime, int]:
    revisions: dict[datetime, int] = {}
    for row in rows:
        start = row.key[1]
        revisions[start] = max(row.revision, revisions.get(start, 0))
    return revisions
