"""Encoding of points as lines, parsed back like InfluxDB."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.storage.line_protocol import point_line

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^,]+)(?:,|$)', re.DOTALL)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
#: A backslash before a character that is escaped, or at the end, cannot be written.
tags = texts.filter(lambda text: text and not re.search(r"\\(?=[,= ]|$)", text))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (False, "false"),
        (3, "3i"),
        (-1, "-1i"),
        (3.0, "3.0"),
        (1e-9, "1e-09"),
        ("", '""'),
        ('say "no\\"', r'"say \"no\\\""'),
    ],
)
def test_each_type_has_its_form(value: Any, written: str) -> None:
    assert point_line("window", {}, {"f": value}, 5) == f"window f={written} 5"


def test_tags_are_part_of_the_series() -> None:
    line = point_line("alarm", {"id": "a b,c=d", "rule": "fuel"}, {"state": "raised"}, 7)
    assert line == r'alarm,id=a\ b\,c\=d,rule=fuel state="raised" 7'


@given(tag=tags, text=texts, number=st.integers(-(2**63), 2**63 - 1))
def test_a_written_point_is_read_unchanged(tag: str, text: str, number: int) -> None:
    line = point_line("m", {"t": tag}, {"text": text, "number": number}, 1)
    # In a tag the equals sign would be escaped.
    series, fields = line.removesuffix(" 1").split(" text=", 1)
    assert re.sub(r"\\([,= ])", r"\1", series.removeprefix("m,t=")) == tag
    found = dict(_FIELD.findall(f"text={fields}"))
    assert re.sub(r"\\(.)", r"\1", found["text"][1:-1], flags=re.DOTALL) == text
    assert found["number"] == f"{number}i"
