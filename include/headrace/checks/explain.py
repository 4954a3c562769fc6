"""Error messages for refused settings and profile entries, with the allowed values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from headrace.checks.values import Check

__all__ = ["allowed_values", "did_you_mean", "explain"]

_SHOWN_ERRORS = 10
_SHOWN_CHARACTERS = 60
_SHOWN_REASON = 200


def allowed_values(field: FieldInfo) -> str | None:
    """Return the allowed values of a setting or profile entry, if it has a check."""
    return next((item.allowed for item in field.metadata if isinstance(item, Check)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Suggest the known name that is most similar, or return another text."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise


def explain(
    error: ValidationError,
    model: type[BaseModel],
    name_of: Callable[[Iterable[str]], str],
    *,
    secret: Collection[str] = (),
) -> str:
    """Describe all errors of a model in one line.

    Parameters
    ----------
    error
        The errors that pydantic found.
    model
        The model that pydantic validated.
    name_of
        Converts an entry's path to the name that a user knows.
    secret
        Entries whose values are not shown.
    """
    found = error.errors(include_url=False)
    lines = [_line(item, model, name_of, secret) for item in found[:_SHOWN_ERRORS]]
    if len(found) > _SHOWN_ERRORS:
        lines.append(f"{len(found) - _SHOWN_ERRORS} more entries are wrong")
    return "; ".join(lines)


def _line(
    item: Any,
    model: type[BaseModel],
    name_of: Callable[[Iterable[str]], str],
    secret: Collection[str],
) -> str:
    path = [str(part) for part in item["loc"] if part != "[key]"]
    # The message of a check on several entries names them.
    named = f"{name_of(path)}: " if path else ""
    reason = str(item.get("ctx", {}).get("error", "")).strip()
    if item["type"] == "extra_forbidden":
        siblings = _model_at(model, path[:-1]).model_fields
        hint = did_you_mean(path[-1], siblings, f"the entries are {', '.join(siblings)}")
        return f"{named}unknown entry; {hint}"
    field = _field_at(model, path)
    allowed = allowed_values(field) if field else None
    if item["loc"] and item["loc"][-1] == "[key]":
        return f"{named}not allowed as a name. Write {NAME_ALLOWED}"
    if item["type"] == "missing":
        return f"{named}missing" + (f". Write {allowed}" if allowed else "")
    if allowed is None:
        return f"{named}{reason or item['msg']}"
    value = "the value" if path and path[0] in secret else _shown(item["input"])
    because = f" ({reason[:_SHOWN_REASON]})" if reason else ""
    return f"{named}{value} is not allowed{because}. Write {allowed}"


def _shown(value: object) -> str:
    try:
        text = "the value" if isinstance(value, SecretStr) else repr(value)
    except (RecursionError, ValueError):
        # For example an integer with more digits than Python prints.
        text = "the value"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _field_at(model: type[BaseModel], path: Iterable[str]) -> FieldInfo | None:
    """Return the innermost field on a path, without dictionary keys and list positions."""
    field: FieldInfo | None = None
    inner: type[BaseModel] | None = model
    for part in path:
        known = inner.model_fields.get(part) if inner else None
        if known is not None:
            field, inner = known, _inner_model(known.annotation)
    return field


def _model_at(model: type[BaseModel], path: Iterable[str]) -> type[BaseModel]:
    inner = model
    for part in path:
        known = inner.model_fields.get(part)
        if known is not None:
            inner = _inner_model(known.annotation) or inner
    return inner


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_inner_model, get_args(annotation))), None)


#: Format of the names of fields, tags and rules.
NAME_ALLOWED = "a letter, then letters, digits and underscores, at most 64 in all"
