"""Points in time."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from headrace.checks.values import Check, NotAllowedError

__all__ = ["Moment"]

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+([Zz]|[+-][0-9]{2}:?[0-9]{2})")
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2200, 1, 1, tzinfo=UTC)


class Moment(Check):
    """An RFC 3339 time between 1970 and 2200."""

    def __init__(self) -> None:
        super().__init__(
            "a time between 1970 and 2200 with its offset from UTC, such as 2026-01-31T12:00:00Z"
        )

    def read(self, value: object) -> datetime:
        """Read a time. A number is refused, because its unit is unknown."""
        moment = value
        if isinstance(value, str):
            if not _MOMENT.fullmatch(value.strip()):
                raise NotAllowedError
            moment = datetime.fromisoformat(value.strip().upper())
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise NotAllowedError
        if not _FIRST <= moment <= _LAST:
            raise NotAllowedError
        return moment.astimezone(UTC)
