"""Formats tables and values in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.checks.durations import duration_text

__all__ = ["duration_text", "table"]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    heads = list(header)
    lines = [heads, ["-"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
