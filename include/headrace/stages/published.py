"""Reads published records from the output topics, starting at the end of a window."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from headrace.models.alarm import ChangeKey, PublishedChange
from headrace.models.foreign import ForeignReason, ForeignRecordError
from headrace.models.row import PublishedRow, RowKey
from headrace.models.window import WindowRange, rfc3339
from headrace.profile import Profile
from headrace.stages.pipeline import Pipeline
from headrace.storage.alarm_records import read_change
from headrace.storage.kafka import Record
from headrace.storage.kafka_log import read_topic
from headrace.storage.records import SkippedRecords, own_records
from headrace.storage.row_records import read_row, starts_within

__all__ = ["published_changes", "published_rows"]


def published_rows(
    windows: WindowRange, pipeline: Pipeline, skipped: SkippedRecords
) -> dict[RowKey, PublishedRow]:
    """Return the newest revision of each published row of a range.

    Parameters
    ----------
    windows
        The range.
    pipeline
        Profile and clients.
    skipped
        Counts records that Headrace did not write.

    Raises
    ------
    MissingResourceError, TransientError
        As `headrace.storage.kafka_log.read_topic`.
    """
    profile = pipeline.profile
    # A run over a day skips a million records of other windows.
    records = read_topic(
        pipeline.kafka,
        profile.topics.downsampled,
        since=_first_stamp(windows),
        wanted=starts_within(windows),
    )
    found: dict[RowKey, PublishedRow] = {}
    for row in own_records(records, partial(_row, profile), skipped):
        known = found.get(row.key)
        if known is None or known.revision <= row.revision:
            found[row.key] = row
    return found


def published_changes(
    windows: WindowRange, pipeline: Pipeline, skipped: SkippedRecords
) -> dict[ChangeKey, PublishedChange]:
    """Return the newest revision of each published change of a range and of later windows.

    Parameters and errors are those of `published_rows`.
    """
    profile = pipeline.profile
    records = read_topic(pipeline.kafka, profile.topics.alarms, since=_first_stamp(windows))
    found: dict[ChangeKey, PublishedChange] = {}
    for item in own_records(records, partial(_change, profile), skipped):
        known = found.get(item.change.key)
        if known is None or known.revision <= item.revision:
            found[item.change.key] = item
    return found


def _first_stamp(windows: WindowRange) -> datetime:
    """Return the earliest timestamp of a record about a range.

    `headrace.storage.kafka_transaction.Publisher.publish` stamps no record earlier than the
    end of its window. Kafka finds the first offset with such a timestamp, so records after
    it are found even if the publisher's clock was set back.
    """
    return windows.start + windows.length


def _row(profile: Profile, record: Record) -> PublishedRow:
    return read_row(profile, record.key, record.value)


def _change(profile: Profile, record: Record) -> PublishedChange:
    item = read_change(profile, record.key, record.value)
    # `Publisher.publish` never does that. Withdrawing a change of the year 2099 would need a
    # record with that timestamp, which Kafka refuses together with all other records.
    stamp = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    if item.change.window_start > stamp - profile.window:
        raise ForeignRecordError(
            ForeignReason.WRONG_VALUE,
            f"timestamp {rfc3339(stamp)} is before the end of the window that starts at "
            f"{rfc3339(item.change.window_start)}",
        )
    return item
