"""Converts values to parameters of a Flux script, and its results to rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import urllib3
from influxdb_client.domain.array_expression import ArrayExpression
from influxdb_client.domain.boolean_literal import BooleanLiteral
from influxdb_client.domain.date_time_literal import DateTimeLiteral
from influxdb_client.domain.duration import Duration
from influxdb_client.domain.duration_literal import DurationLiteral
from influxdb_client.domain.expression import Expression
from influxdb_client.domain.file import File
from influxdb_client.domain.float_literal import FloatLiteral
from influxdb_client.domain.identifier import Identifier
from influxdb_client.domain.integer_literal import IntegerLiteral
from influxdb_client.domain.model_property import ModelProperty
from influxdb_client.domain.object_expression import ObjectExpression
from influxdb_client.domain.option_statement import OptionStatement
from influxdb_client.domain.string_literal import StringLiteral
from influxdb_client.domain.variable_assignment import VariableAssignment

from headrace.errors import BadQueryError

__all__ = ["FluxValue", "Row", "extern", "rows_of"]

#: Types of Flux parameters.
FluxValue = (
    bool
    | int
    | float
    | str
    | datetime
    | timedelta
    | Sequence["FluxValue"]
    | Mapping[str, "FluxValue"]
)
#: One row of a Flux result: values by column name.
Row = dict[str, Any]


def extern(params: Mapping[str, FluxValue]) -> File:
    """Encode parameters as ``option params = {...}``, which is sent with a script."""
    assignment = VariableAssignment(
        "VariableAssignment", Identifier("Identifier", "params"), _literal(params)
    )
    return File(imports=[], body=[OptionStatement("OptionStatement", assignment)])


def _literal(value: FluxValue) -> Expression:  # noqa: PLR0911 - one line a type
    match value:
        case bool():
            return BooleanLiteral("BooleanLiteral", value)
        case int():
            return IntegerLiteral("IntegerLiteral", str(value))
        case float():
            return FloatLiteral("FloatLiteral", value)
        case str():
            return StringLiteral("StringLiteral", value)
        case datetime():
            text = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
            return DateTimeLiteral("DateTimeLiteral", text)
        case timedelta():
            length = Duration("Duration", value // timedelta(microseconds=1), "us")
            return DurationLiteral("DurationLiteral", [length])
        case Mapping():
            return ObjectExpression(
                "ObjectExpression",
                [
                    ModelProperty("Property", Identifier("Identifier", name), _literal(item))
                    for name, item in value.items()
                ],
            )
        case _:
            return ArrayExpression("ArrayExpression", [_literal(item) for item in value])


@lru_cache(maxsize=1024)
def _parse_moment(text: str) -> datetime:
    # All rows of a window have the same time.
    return datetime.fromisoformat(text)


_PARSERS: dict[str, Any] = {
    "boolean": lambda text: text == "true",
    "long": int,
    "unsignedLong": int,
    "double": float,
    "dateTime:RFC3339": _parse_moment,
    "dateTime:RFC3339Nano": _parse_moment,
}


_TEXT_TIMES = {name: parse for name, parse in _PARSERS.items() if parse is not _parse_moment}


def rows_of(response: urllib3.BaseHTTPResponse, *, times_as_text: bool) -> Iterator[Row]:
    """Read annotated CSV: one block per table schema, with types, defaults and names.

    Parameters
    ----------
    response
        InfluxDB's answer, asked for with the annotations ``datatype`` and ``default``.
    times_as_text
        Leave times as InfluxDB writes them, to the nanosecond.

    Raises
    ------
    BadQueryError
        If InfluxDB reports an error in the middle of its answer.
    """
    parsers = _TEXT_TIMES if times_as_text else _PARSERS
    lines = csv.reader(io.TextIOWrapper(response, encoding="utf-8", newline=""))  # type: ignore[type-var]
    types: list[str] = []
    defaults: list[str] = []
    columns: list[tuple[int, str, Any, Any]] = []
    begins = True
    for cells in lines:
        if not cells:
            begins = True
            continue
        if begins and cells[1:2] == ["error"]:
            # InfluxDB had already sent the status 200.
            raise BadQueryError(" ".join(next(lines, [])).strip())
        begins = False
        if cells[0] == "#datatype":
            types, columns = cells, []
        elif cells[0] == "#default":
            defaults = cells
        elif not columns:
            columns = [
                (index, name, parsers.get(types[index]), defaults[index])
                for index, name in enumerate(cells)
                if index > 0
            ]
        else:
            row: Row = {}
            for index, name, parse, default in columns:
                text = cells[index] or default
                if parse is None:
                    row[name] = text or None
                else:
                    row[name] = parse(text) if text else None
            yield row
