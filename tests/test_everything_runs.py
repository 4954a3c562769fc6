"""Each DAG, command and make target runs to its end in a test.

A test names what it runs in a marker, ``@pytest.mark.runs("dag:...", "cli:...", "make:...")``.
This module reads the markers from the source of the tests, and compares them with the DAG
files, the command line and the Makefile. Each new one needs a test.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import typer

from headrace import cli
from headrace.cli.app import app

PROJECT = Path(__file__).resolve().parents[1]
TESTS = PROJECT / "tests"

#: A test with one of these markers may never run.
NEVER_RUN = {"skip", "skipif", "xfail"}


def named_by(test: ast.FunctionDef) -> list[str] | None:
    """Return what a test's marker names; `None` without the marker."""
    named: list[str] | None = None
    markers = set()
    for decorator in test.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        marker = ast.unparse(called).removeprefix("pytest.mark.")
        markers.add(marker)
        if marker == "runs" and isinstance(decorator, ast.Call):
            named = [ast.literal_eval(argument) for argument in decorator.args]
    assert named is None or not markers & NEVER_RUN, f"{test.name} may never run"
    return named


def runs_of(path: Path) -> set[str]:
    """Return what the tests of a file run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    uses = sum(1 for node in ast.walk(tree) if _is_marker(node))
    found = [
        named
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and (named := named_by(node)) is not None
    ]
    assert len(found) == uses, f"{path.name}: the marker `runs` belongs on a test function"
    return {name for named in found for name in named}


def _is_marker(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.runs"


@pytest.fixture(scope="module")
def run() -> set[str]:
    """Everything that a test runs to its end."""
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if path != Path(__file__)]
    return set().union(*(runs_of(path) for path in files))


def dags() -> set[str]:
    """Return the DAGs by the function in their file: ``windows_dag`` creates ``windows``."""
    found = set()
    for path in sorted((PROJECT / "dags").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        makers = [
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id.endswith("_dag")
        ]
        assert len(makers) == 1, f"{path.name} must create one DAG"
        found.add(makers[0].removesuffix("_dag"))
    return found


def commands() -> set[str]:
    """Return the commands of ``headrace``."""
    # Commands register themselves on import of their module.
    for module in pkgutil.iter_modules(cli.__path__, f"{cli.__name__}."):
        importlib.import_module(module.name)
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return set(group.commands)


def targets() -> set[str]:
    """Return the targets that ``make help`` shows or that are phony."""
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    phony = {name for line in re.findall(r"(?m)^\.PHONY:(.*)$", text) for name in line.split()}
    shown = set(re.findall(r"(?m)^([a-z-]+):.*## ", text))
    assert shown == phony, "every phony target is explained by `make help`"
    return shown


def test_every_dag_runs(run: set[str]) -> None:
    assert dags() == {name.removeprefix("dag:") for name in run if name.startswith("dag:")}


def test_every_command_runs(run: set[str]) -> None:
    assert commands() == {name.removeprefix("cli:") for name in run if name.startswith("cli:")}


def test_every_make_target_runs(run: set[str]) -> None:
    assert targets() == {name.removeprefix("make:") for name in run if name.startswith("make:")}


def test_markers_name_only_known_kinds(run: set[str]) -> None:
    assert {name.partition(":")[0] for name in run} == {"dag", "cli", "make"}
