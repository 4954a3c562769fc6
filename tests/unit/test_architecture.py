"""Module boundaries, and the two chains of modules in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "include" / "headrace"
#: Names that only adapters may use: Flux files, columns of results, clients of InfluxDB.
FOREIGN = re.compile(
    r"\.flux\b|[\"']_(?:time|value|field|measurement)[\"']|influxdb_client|storage\.(?:influx|flux)"
)
#: Exceptions: wiring, and checks of the Flux file of a profile's rule.
WIRING = ("stages/factory.py",)


def logic() -> list[str]:
    """Return the modules that must not depend on the storage format."""
    found = (
        path
        for folder in ("models", "stages", "ingest")
        for path in sorted((PACKAGE / folder).glob("*.py"))
    )
    return [str(path.relative_to(PACKAGE)) for path in found]


@pytest.mark.parametrize("module", logic())
def test_logic_does_not_use_influxdb(module: str) -> None:
    text = (PACKAGE / module).read_text(encoding="utf-8")
    # Docstrings of the interfaces name their adapters.
    code = re.sub(r'"""(?:.|\n)*?"""', "", text)
    if module not in (*WIRING, "ingest/factory.py"):
        assert FOREIGN.findall(code) == []


@pytest.mark.parametrize("module", [name for name in logic() if name.startswith("models/")])
def test_models_do_no_io(module: str) -> None:
    text = (PACKAGE / module).read_text(encoding="utf-8")
    names = re.findall(r"^(?:from|import) (headrace\.[a-z_]+)", text, re.MULTILINE)
    allowed = {"headrace.models", "headrace.errors", "headrace.profile", "headrace.checks"}
    assert set(names) <= allowed


@pytest.mark.parametrize("title", ["One payload", "One window"])
def test_a_chain_has_at_most_eight_modules_in_order(title: str) -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split(f"\n{title}, from ")[1].split("\n\n")[1]
    steps = re.findall(r"^\| (\d) \| [`\[]([a-z_/]+\.py)", table, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    modules = [module for _, module in steps]
    assert len(set(modules)) == len(modules) <= 8
    for module in modules:
        folder = PROJECT if module.startswith("dags/") else PACKAGE
        assert (folder / module).is_file()
    drawn = (PROJECT / "docs" / "pictures" / "modules.svg").read_text(encoding="utf-8")
    for number, module in steps:
        assert f">{number}. {module.removesuffix('.py')}<" in drawn
