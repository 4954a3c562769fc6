"""Records that another program wrote to one of Headrace's topics."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ForeignReason", "ForeignRecordError"]


class ForeignReason(StrEnum):
    """Reason to treat a record as foreign, also the label of a metric."""

    EMPTY = "empty"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_VALUE = "wrong_value"
    WRONG_KEY = "wrong_key"


class ForeignRecordError(Exception):
    """A record on one of our topics is not from Headrace.

    Parsers raise it; `headrace.storage.records.own_records` skips the record. Not a
    `headrace.errors.HeadraceError`: nothing failed, and nothing is retried.

    Parameters
    ----------
    reason
        Kind of the problem.
    detail
        The problem with the wrong values, for people.
    """

    def __init__(self, reason: ForeignReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
