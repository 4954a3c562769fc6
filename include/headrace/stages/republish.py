"""Republishing: rows and alarm changes to Kafka, each revision once.

It reads the stored and the published state, compares them, publishes the difference, and records
it. The published state is read from the output topics, to which the same transaction writes, so no
second store can disagree. If a worker dies, either the whole difference is published
or nothing, and the next attempt determines which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headrace.models.difference import Difference, Published, difference
from headrace.models.marker import NOT_PUBLISHED
from headrace.models.window import WindowRange, ranges_of
from headrace.profile import Profile
from headrace.stages.alarm_history import read_history
from headrace.stages.pipeline import Pipeline
from headrace.stages.published import published_changes, published_rows
from headrace.stages.ranges import PIECE
from headrace.stages.window_store import WindowStore
from headrace.storage.alarm_records import change_value
from headrace.storage.kafka_transaction import OutRecord, Publisher
from headrace.storage.records import SkippedRecords
from headrace.storage.row_records import row_value

__all__ = ["Republished", "republish"]


@dataclass(frozen=True)
class Republished:
    """The result of republishing a range.

    Parameters
    ----------
    rows
        Rows of the range.
    new, corrected
        How many of them were published for the first time, and again.
    changes
        Published alarm changes.
    left
        Windows that were left to another run, which computes them at the same time.
    foreign
        Number of skipped foreign records by topic.
    """

    rows: int = 0
    new: int = 0
    corrected: int = 0
    changes: int = 0
    left: int = 0
    foreign: Mapping[str, int] = field(default_factory=dict)


def republish(windows: WindowRange, pipeline: Pipeline, *, run: str) -> Republished:
    """Publish the new and corrected records of a range.

    A long range is published in several transactions, so that its rows need not be in memory
    together. A window is never split over transactions.

    Parameters
    ----------
    windows
        The range.
    pipeline
        Profile and clients.
    run
        The run that has computed the range.

    Raises
    ------
    TransientError
        If Kafka or InfluxDB is unavailable, or another publisher took over. Nothing of the
        current transaction is published then.
    PermanentError
        If a server refuses the request.
    """
    results = []
    for piece in windows.pieces(PIECE):
        # Opening the publisher ends the transaction of a dead predecessor and waits until the
        # last commit is visible in all partitions. So the records read next are complete.
        with Publisher(pipeline.kafka, f"headrace-republish-{pipeline.profile.name}") as publisher:
            results.append(_republish_piece(piece, publisher, pipeline, run))
    foreign: Counter[str] = Counter()
    for result in results:
        # Each piece reads the topics to their end, so most foreign records are read each time.
        foreign |= Counter(result.foreign)
    return Republished(
        rows=sum(result.rows for result in results),
        new=sum(result.new for result in results),
        corrected=sum(result.corrected for result in results),
        changes=sum(result.changes for result in results),
        left=sum(result.left for result in results),
        foreign=dict(foreign),
    )


def _republish_piece(
    windows: WindowRange, publisher: Publisher, pipeline: Pipeline, run: str
) -> Republished:
    profile, store = pipeline.profile, pipeline.store
    skipped = SkippedRecords()
    rows = store.rows(windows)
    ours = _ours(windows, run, store)
    published = Published(
        published_rows(windows, pipeline, skipped), published_changes(windows, pipeline, skipped)
    )
    found = []
    # One range, unless another run is about to publish some of the windows.
    for part in ranges_of(ours, profile.window):
        # Rows of an earlier profile with shorter windows are not rows of this range.
        starts = set(part.starts())
        inside = [row for row in rows if row.start in starts]
        history = read_history(part, inside, published.changes, pipeline)
        news = difference(part, inside, history, published, profile)
        publisher.publish(list(_records(news, profile)), news.not_before)
        _record(news, store)
        # Changes of one part can affect windows of the next one.
        published = published.plus(news)
        found.append(news)
    new = sum(row.revision == 0 for news in found for row in news.rows)
    return Republished(
        rows=sum(sum(news.counts.values()) for news in found),
        new=new,
        corrected=sum(len(news.rows) for news in found) - new,
        changes=sum(len(news.changes.news) for news in found),
        left=len(windows) - len(ours),
        foreign=skipped.by_topic(),
    )


def _ours(windows: WindowRange, run: str, store: WindowStore) -> set[datetime]:
    """Return the starts of the windows that no other run is about to publish.

    Called after the rows were read: a run that claims windows from now on can't have changed
    them, and windows that were claimed before may be half computed.
    """
    return {
        start
        for start, marker in store.markers(windows).items()
        if marker.run == run or marker.published != NOT_PUBLISHED
    }


def _records(found: Difference, profile: Profile) -> Iterator[OutRecord]:
    for row in found.rows:
        yield (
            profile.topics.downsampled,
            row.key[0].encode(),
            row_value(row.content, row.revision),
        )
    for item in found.changes.news:
        yield (
            profile.topics.alarms,
            item.change.device.encode(),
            change_value(profile, item.change, item.revision),
        )


def _record(found: Difference, store: WindowStore) -> None:
    """Record published rows and changes.

    Only what consumers have is recorded. If the process dies before, the windows count as
    unpublished, are computed again, and their confirmed changes are recorded then.
    """
    store.record_changes([*found.changes.confirmed, *found.changes.news])
    store.record_published(found.counts, found.revisions)
