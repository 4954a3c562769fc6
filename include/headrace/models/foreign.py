"""Records that another program wrote to one of Headrace's topics."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ForeignReason", "ForeignRecordError"]


class ForeignReason(StrEnum):
    """What shows that Headrace did not write a record: the label of a metric."""

    EMPTY = "empty"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_VALUE = "wrong_value"
    WRONG_KEY = "wrong_key"


class ForeignRecordError(Exception):
    """A record on one of our topics is not one that Headrace writes.

    Parsers raise it; `headrace.storage.records.own_records` skips the record. Not a
    `headrace.errors.HeadraceError`: nothing failed, and nothing is retried.

    Parameters
    ----------
    reason
        What is wrong with the record.
    detail
        The same for a person, with the values at fault.
    """

    def __init__(self, reason: ForeignReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
