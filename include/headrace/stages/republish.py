"""Republishing: rows and alarm changes to Kafka, each revision once.

What consumers already have is read from the output topics themselves, which the same
transaction writes, so no second store can disagree with them. A worker that dies between
any two steps leaves either the whole difference published or nothing of it, and the next
attempt finds out which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

from headrace.models.alarm import PublishedChange, change_value
from headrace.models.row import (
    PublishedRow,
    RowKey,
    read_row,
    row_content,
    row_value,
    starts_within,
)
from headrace.models.window import WindowRange, ranges_of
from headrace.stages.alarm_changes import changes_to_publish
from headrace.stages.alarm_record import write_changes
from headrace.stages.markers import NOT_PUBLISHED, read_markers, write_published
from headrace.stages.pipeline import Pipeline
from headrace.stages.published import records_since
from headrace.storage.flux_values import Row
from headrace.storage.kafka_transaction import OutRecord, Publisher

__all__ = ["Republished", "republish", "stored_rows"]


@dataclass(frozen=True)
class Republished:
    """What republishing a range came to.

    Parameters
    ----------
    rows
        Rows of the range.
    new, corrected
        How many of them were published for the first time, and again.
    changes
        Changes of alarms that were published.
    left
        Windows that were left to another run, which computes them at the same time.
    """

    rows: int
    new: int
    corrected: int
    changes: int
    left: int


def republish(windows: WindowRange, pipeline: Pipeline, *, run: str) -> Republished:
    """Publish what consumers do not have yet of a range.

    Parameters
    ----------
    windows
        The range.
    pipeline
        Profile and clients.
    run
        The run that has computed it.

    Raises
    ------
    TransientError
        If Kafka or InfluxDB is away, or another publisher took over: nothing of the
        range is published then.
    PermanentError
        If a server refuses for good.
    """
    profile = pipeline.profile
    # Opened first: it ends what a dead predecessor had begun, and waits until the last
    # commit shows in all partitions, so that what is read next is all there is.
    with Publisher(pipeline.kafka, f"headrace-republish-{profile.name}") as publisher:
        rows = stored_rows(windows, pipeline)
        ours = _ours(windows, run, pipeline)
        rows = [row for row in rows if row["_time"] in ours]
        contents = {
            (row[profile.id_field], row["_time"]): row_content(profile, row) for row in rows
        }
        known = _published_rows(windows, pipeline)
        news = list(_news(contents, known))
        changes = _changes(ours, rows, pipeline)
        write_changes(changes, pipeline)
        publisher.publish(
            [*_row_records(news, pipeline), *_change_records(changes, pipeline)],
            # One may be about a later window than those of the range.
            max([windows.stop, *(item.change.window_start + windows.length for item in changes)]),
        )
    published: Counter[datetime] = Counter(dict.fromkeys(ours, 0))
    published.update(start for _, start in contents)
    if published:
        write_published(published, _revisions([*known.values(), *news]), pipeline)
    new = sum(row.revision == 0 for row in news)
    return Republished(len(rows), new, len(news) - new, len(changes), len(windows) - len(ours))


def stored_rows(windows: WindowRange, pipeline: Pipeline) -> list[Row]:
    """Rows of a range as the bucket has them, by time: ``_time`` is the window's start."""
    params = {**pipeline.range_params(windows), "id": pipeline.profile.id_field}
    rows = pipeline.run("rows.flux", params)
    return sorted(rows, key=itemgetter("_time"))


def _ours(windows: WindowRange, run: str, pipeline: Pipeline) -> set[datetime]:
    """Starts of the windows that no other run is about to publish.

    Asked after the rows were read: what another run claims from now on can't have changed
    them, and what it had claimed before may be half computed.
    """
    return {
        start
        for start, marker in read_markers(windows, pipeline).items()
        if marker.run == run or marker.published != NOT_PUBLISHED
    }


def _published_rows(windows: WindowRange, pipeline: Pipeline) -> dict[RowKey, PublishedRow]:
    known = {}
    topic = pipeline.profile.topics.downsampled
    # A run over a day passes over a million records of other windows.
    wanted = starts_within(windows)
    for record in records_since(windows, topic, pipeline.kafka, wanted):
        row = read_row(pipeline.profile, record.value)
        known[row.key] = row
    return known


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
    """Highest revision of the rows of each window."""
    revisions: dict[datetime, int] = {}
    for row in rows:
        start = row.key[1]
        revisions[start] = max(row.revision, revisions.get(start, 0))
    return revisions


def _changes(
    ours: Iterable[datetime], rows: Iterable[Row], pipeline: Pipeline
) -> Collection[PublishedChange]:
    rows = list(rows)
    changes = {}
    for part in ranges_of(ours, pipeline.profile.window):
        inside = [row for row in rows if part.start <= row["_time"] < part.stop]
        # What one part changes may show in the next one.
        for item in changes_to_publish(part, inside, pipeline):
            changes[item.change.key] = item
    return changes.values()


def _row_records(rows: Iterable[PublishedRow], pipeline: Pipeline) -> Iterator[OutRecord]:
    topic = pipeline.profile.topics.downsampled
    for row in rows:
        yield topic, row.key[0].encode(), row_value(row.content, row.revision)


def _change_records(changes: Iterable[PublishedChange], pipeline: Pipeline) -> Iterator[OutRecord]:
    topic = pipeline.profile.topics.alarms
    for item in changes:
        value = change_value(pipeline.profile, item.change, item.revision)
        yield topic, item.change.device.encode(), value
