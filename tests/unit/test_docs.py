"""Links, names, tables and examples in the documents are right."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import headrace.cli
from headrace.cli.app import app
from headrace.errors import ConfigurationError
from headrace.models.device_time import epoch_ns
from headrace.models.reading import ReadingCodec
from headrace.profile import Profile, load_profile
from headrace.settings import ENV_PREFIX, GROUPS, SECRETS, Settings
from headrace.storage.reading_lines import LineEncoder
from tools import docs, docs_logs, docs_profile, docs_tables

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(PROJECT)) for path in DOCUMENTS]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SETTING = re.compile(rf"\b{ENV_PREFIX}[A-Z0-9_]*[A-Z0-9]\b")
#: `headrace <command>` and `make <target>` in code blocks and code spans.
_CODE = re.compile(r"```.*?\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_HEADRACE = re.compile(
    r"(?:^|bin/|run --rm |\$ )(?:headrace|cli) ((?:--)?[a-z][a-z-]*)", re.MULTILINE
)
_MAKE = re.compile(r"(?:^|[\s;&|$(])make ([a-z][a-z-]*)", re.MULTILINE)
#: Files and folders of the checkout.
_PATH = re.compile(r"(?:dags|plugins|include|native|tests|benchmarks|docs|docker)/[\w./-]*\w")

#: Words that slow a reader down, and what this project writes instead.
_UNWANTED = {
    "all the same": "still, anyway",
    "anew": "again",
    "by hand": "manually",
    "for ever": "without limit",
    "for so long": "for this long",
    "greet": "connect",
    "hands_on": "passes on",
    "one's own": "your own, its own",
    "roll call": "status",
    "so many": "this number of",
    "somebody": "the person or program",
    "took_off": "received",
    "whoever": "the person or program that",
    "whom": "the person or program",
}
_UNWANTED_WORD = re.compile(rf"(?i)\b(?:{'|'.join(_UNWANTED)})\b")
_SUFFIXES = {".md", ".py", ".flux", ".html", ".js", ".yaml", ".yml", ".toml", ""}
_FOLDERS = ("benchmarks", "dags", "docker", "docs", "include", "native", "plugins", "tests")


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def code_of(name: str) -> Iterator[str]:
    for block, span in _CODE.findall(text_of(name)):
        yield block or span


def anchors_of(path: Path) -> set[str]:
    """Return the anchors that GitHub generates from a document's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> set[str]:
    """Return the commands of ``headrace``, which register themselves on import."""
    for module in pkgutil.iter_modules(headrace.cli.__path__, "headrace.cli."):
        importlib.import_module(module.name)
    return {
        str(command.name or getattr(command.callback, "__name__", ""))
        for command in app.registered_commands
    }


def block_of(name: str, language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", text_of(name), re.DOTALL)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("name", NAMES)
def test_links_have_a_target(name: str) -> None:
    here = PROJECT / name
    for link in _LINK.findall(text_of(name)):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        path = (here.parent / target).resolve() if target else here
        assert path.exists(), f"{link}: there is no {path.relative_to(PROJECT)}"
        if anchor:
            assert anchor in anchors_of(path), f"{link}: no such heading"


def test_unwanted_words_are_not_used() -> None:
    """The words are allowed in this file only."""
    files = [path for path in PROJECT.glob("[!.L]*") if path.is_file()]  # Not the LICENSE.
    for folder in _FOLDERS:
        files += [path for path in (PROJECT / folder).rglob("*") if path.is_file()]
    used = [
        f"{path.relative_to(PROJECT)}: {word!r}; write: {_UNWANTED[word.lower()]}"
        for path in files
        if path.suffix in _SUFFIXES and "node_modules" not in path.parts
        if path != Path(__file__)
        for word in _UNWANTED_WORD.findall(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert used == []


@pytest.mark.parametrize("name", NAMES)
def test_settings_exist(name: str) -> None:
    known = {f"{ENV_PREFIX}{setting.upper()}" for setting in Settings.model_fields}
    known |= {f"{ENV_PREFIX}{secret.upper()}_FILE" for secret in SECRETS}
    assert set(_SETTING.findall(text_of(name))) <= known


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str) -> None:
    known = {*commands(), "--help"}
    targets = set(re.findall(r"(?m)^([a-z-]+):", text_of("Makefile")))
    for code in code_of(name):
        assert set(_HEADRACE.findall(code)) <= known, code
        assert set(_MAKE.findall(code)) <= targets, code


@pytest.mark.parametrize("name", NAMES)
def test_files_exist(name: str) -> None:
    for code in code_of(name):
        for path in _PATH.findall(code):
            # The files of the example with pumps do not exist, and patterns name no single file.
            if "pumps" not in path and "<" not in code and "*" not in code:
                assert (PROJECT / path).exists(), f"{path} in: {code}"


@pytest.mark.parametrize("name", NAMES)
def test_generated_tables_are_up_to_date(name: str) -> None:
    text = text_of(name)
    assert docs.make_document(text) == text, "run `make docs`"


def test_every_generated_table_is_in_a_document() -> None:
    shown = set(re.findall(r"<!-- made: (\S+) -->", "".join(map(text_of, NAMES))))
    assert shown == set(docs.PIECES)


def test_wrong_markers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no-such-piece"):
        docs.make_document("<!-- made: no-such-piece -->\n<!-- end -->")
    with pytest.raises(ConfigurationError, match="<!-- end -->"):
        docs.make_document("<!-- made: metrics -->\n")


def test_every_setting_is_in_one_group() -> None:
    grouped = [name for group in GROUPS for name in group.model_fields]
    assert sorted(grouped) == sorted(Settings.model_fields)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(milliseconds=100), "100ms"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=60), "1h"),
        (timedelta(days=7), "7d"),
    ],
)
def test_durations_are_written_as_settings_accept_them(length: timedelta, text: str) -> None:
    assert docs_tables.duration_text(length) == text


def test_every_decision_is_in_the_index() -> None:
    listed = text_of("docs/adr/README.md")
    pages = sorted((PROJECT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        title = re.match(r"# (\d+)\. (.+)\n", page.read_text(encoding="utf-8"))
        assert title is not None
        assert int(title[1]) == int(page.name[:4])
        assert f"| [{title[1]}]({page.name}) | {title[2]} |" in listed


@pytest.fixture
def pumps(tmp_path: Path) -> Profile:
    path = tmp_path / "pumps.yaml"
    path.write_text(block_of("docs/connect-a-fleet.md", "yaml"))
    return load_profile(path)


def test_the_example_profile_accepts_the_example_reading(pumps: Profile) -> None:
    payload = block_of("docs/connect-a-fleet.md", "json")
    reading = json.loads(payload)
    taken = datetime.fromisoformat(reading["time"]) + timedelta(seconds=1)
    limit = timedelta(minutes=5)
    codec = ReadingCodec(pumps, max_payload_bytes=1000, max_age=limit, max_ahead=limit)
    time_ns = codec.check(payload.encode(), reading["pumpID"], epoch_ns(taken.astimezone(UTC)))
    assert time_ns is not None
    line = LineEncoder(pumps).line(payload.encode(), b"%d" % time_ns)
    assert line.startswith(b"pump,pumpID=p17 flow=412.5,pressure=6.1,motor_temperature=58.0 ")
    template = pumps.mqtt.topic.replace("+", "[^/]+").replace("{id}", reading["pumpID"])
    assert re.search(f"`{template}`", text_of("docs/connect-a-fleet.md"))


def test_every_entry_of_a_profile_is_explained() -> None:
    assert {path for path, _, _ in docs_profile.entries()} <= set(docs_profile.MEANINGS)


def test_every_warning_and_error_is_explained() -> None:
    logged = {item.text for item in docs_logs.logged()}
    assert logged == set(docs_logs.EXPLANATIONS)


def test_every_command_is_in_the_reference() -> None:
    shown = set(re.findall(r"(?m)^### headrace (\S+)$", text_of("docs/reference/cli.md")))
    assert shown == commands()


def test_every_page_is_in_the_index() -> None:
    linked = {
        (PROJECT / "docs" / link.partition("#")[0]).resolve()
        for link in _LINK.findall(text_of("docs/README.md"))
    }
    pages = {*(PROJECT / "docs").glob("*.md"), *(PROJECT / "docs" / "reference").glob("*.md")}
    assert pages - {PROJECT / "docs" / "README.md"} <= linked


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("docs/")])
def test_tests_named_in_the_documents_exist(name: str) -> None:
    file = ""
    for path, test in re.findall(r"`(?:tests/)?([\w/]+\.py)?(?:::(\w+))?`", text_of(name)):
        file = path or file
        if path.startswith(("unit/", "integration/", "e2e/", "dags/")) or (test and file):
            source = PROJECT / "tests" / file
            assert source.exists(), f"{file} is named in {name}"
            assert not test or f"def {test}(" in source.read_text(encoding="utf-8"), test
