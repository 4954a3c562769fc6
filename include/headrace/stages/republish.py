"""Republishing: rows and alarm changes to Kafka, each revision once.

What consumers have is read from the output topics themselves. The same transaction writes
them, so no second store can disagree. A worker that dies leaves either the whole difference
published or nothing of it, and the next attempt finds out which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from headrace.models.alarm import ChangeKey, PublishedChange, change_value
from headrace.models.alarm_derivation import Comparison
from headrace.models.row import PublishedRow, RowKey, row_content, row_value
from headrace.models.window import WindowRange, ranges_of
from headrace.stages.alarm_changes import compare_changes
from headrace.stages.alarm_record import write_changes
from headrace.stages.markers import NOT_PUBLISHED, read_markers, write_published
from headrace.stages.pipeline import Pipeline
from headrace.stages.published import published_changes, published_rows
from headrace.stages.ranges import PIECE
from headrace.storage.flux_values import Row
from headrace.storage.kafka_transaction import OutRecord, Publisher
from headrace.storage.records import SkippedRecords

__all__ = ["Republished", "republish", "stored_rows"]


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
        By topic: records that Headrace did not write, and that were skipped.
    """

    rows: int = 0
    new: int = 0
    corrected: int = 0
    changes: int = 0
    left: int = 0
    foreign: Mapping[str, int] = field(default_factory=dict)


def republish(windows: WindowRange, pipeline: Pipeline, *, run: str) -> Republished:
    """Publish what consumers do not have yet of a range.

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
        # last commit is visible in all partitions. So what is read next is complete.
        with Publisher(pipeline.kafka, f"headrace-republish-{pipeline.profile.name}") as publisher:
            results.append(_republish_piece(piece, publisher, pipeline, run))
    foreign: Counter[str] = Counter()
    for result in results:
        # Each piece reads the topics to their end, so most foreign records are met each time.
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
    profile = pipeline.profile
    skipped = SkippedRecords()
    rows = stored_rows(windows, pipeline)
    ours = _ours(windows, run, pipeline)
    rows = [row for row in rows if row["_time"] in ours]
    contents = {(row[profile.id_field], row["_time"]): row_content(profile, row) for row in rows}
    known = published_rows(windows, pipeline, skipped)
    news = list(_news(contents, known))
    told = published_changes(windows, pipeline, skipped)
    changes = _changes(ours, rows, told, pipeline)
    publisher.publish(
        [*_row_records(news, pipeline), *_change_records(changes.news, pipeline)],
        # A change may be about a later window than those of the range.
        max([windows.stop, *(item.change.window_start + windows.length for item in changes.news)]),
    )
    # Only what consumers have is recorded. If the process dies before, the windows count as
    # unpublished, are computed again, and their confirmed changes are recorded then.
    write_changes([*changes.confirmed, *changes.news], pipeline)
    published: Counter[datetime] = Counter(dict.fromkeys(ours, 0))
    published.update(start for _, start in contents)
    if published:
        write_published(published, _revisions([*known.values(), *news]), pipeline)
    new = sum(row.revision == 0 for row in news)
    return Republished(
        rows=len(rows),
        new=new,
        corrected=len(news) - new,
        changes=len(changes.news),
        left=len(windows) - len(ours),
        foreign=skipped.by_topic(),
    )


def stored_rows(windows: WindowRange, pipeline: Pipeline) -> list[Row]:
    """Return the rows of a range from the bucket, by time: ``_time`` is the window's start."""
    params = {**pipeline.range_params(windows), "id": pipeline.profile.id_field}
    rows = pipeline.run("rows.flux", params)
    return sorted(rows, key=itemgetter("_time"))


def _ours(windows: WindowRange, run: str, pipeline: Pipeline) -> set[datetime]:
    """Return the starts of the windows that no other run is about to publish.

    Called after the rows were read: a run that claims windows from now on can't have changed
    them, and windows that were claimed before may be half computed.
    """
    return {
        start
        for start, marker in read_markers(windows, pipeline).items()
        if marker.run == run or marker.published != NOT_PUBLISHED
    }


def _news(
    contents: Mapping[RowKey, Mapping[str, Any]], known: Mapping[RowKey, PublishedRow]
) -> Iterator[PublishedRow]:
    for key, content in contents.items():
        row = known.get(key)
        if row is None:
            yield PublishedRow(key, 0, content)
        elif row.content != content:
            yield PublishedRow(key, row.revision + 1, content)


def _revisions(rows: Iterable[PublishedRow]) -> dict[datetime, int]:
    """Return the highest revision of the rows of each window."""
    revisions: dict[datetime, int] = {}
    for row in rows:
        start = row.key[1]
        revisions[start] = max(row.revision, revisions.get(start, 0))
    return revisions


def _changes(
    ours: Iterable[datetime],
    rows: Collection[Row],
    told: Mapping[ChangeKey, PublishedChange],
    pipeline: Pipeline,
) -> Comparison:
    told = dict(told)
    news: dict[ChangeKey, PublishedChange] = {}
    confirmed: list[PublishedChange] = []
    for part in ranges_of(ours, pipeline.profile.window):
        inside = [row for row in rows if part.start <= row["_time"] < part.stop]
        found = compare_changes(part, inside, told, pipeline)
        # What one part changes may concern windows of the next one.
        fresh = {item.change.key: item for item in found.news}
        told |= fresh
        news |= fresh
        confirmed += found.confirmed
    return Comparison(
        tuple(news.values()),
        tuple(item for item in confirmed if item.change.key not in news),
    )


def _row_records(rows: Iterable[PublishedRow], pipeline: Pipeline) -> Iterator[OutRecord]:
    topic = pipeline.profile.topics.downsampled
    for row in rows:
        yield topic, row.key[0].encode(), row_value(row.content, row.revision)


def _change_records(changes: Iterable[PublishedChange], pipeline: Pipeline) -> Iterator[OutRecord]:
    topic = pipeline.profile.topics.alarms
    for item in changes:
        value = change_value(pipeline.profile, item.change, item.revision)
        yield topic, item.change.device.encode(), value
