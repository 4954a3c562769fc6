"""``python -m native.docs``: the parts of the documents that are made from the code.

A document says where a made piece stands, and the prose around it is written by hand::

    <!-- made: settings -->
    ...
    <!-- end -->

To add a piece, write a function that returns Markdown and enter it in `PIECES`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from prometheus_client import Metric
from pydantic.fields import FieldInfo

from benchmarks.table import markdown_rows
from headrace.errors import ConfigurationError, PermanentError
from headrace.ingest.metrics import BridgeMetrics, SinkMetrics
from headrace.models.deadletter import Reason
from headrace.models.window import rfc3339
from headrace.orchestration.policies import POLICIES
from headrace.settings import ENV_PREFIX, GROUPS, SECRETS

__all__ = ["PIECES", "duration_text", "make_document", "stale_documents", "table"]

#: What `make bench` writes.
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results.json"
_CHECKOUT = Path(__file__).resolve().parents[1]
_PIECE = re.compile(r"(<!-- made: (?P<name>[^ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_MIB = 1 << 20


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    heads = list(header)
    lines = [heads, ["-"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def duration_text(length: timedelta) -> str:
    """Write a duration as a setting or a profile has it, such as ``15s``."""
    unit = next(name for name, size in _UNITS.items() if not length % size)
    return f"{length // _UNITS[unit]}{unit}"


def settings() -> str:
    """Every setting, group by group."""
    parts = []
    for group in GROUPS:
        title = (group.__doc__ or "").rstrip(".")
        rows = [
            [
                f"`{ENV_PREFIX}{name.upper()}`",
                _default(field),
                field.description or "",
                "secret" if name in SECRETS else "",
            ]
            for name, field in group.model_fields.items()
        ]
        parts += [f"## {title}", table(["setting", "default", "meaning", ""], rows)]
    return "\n\n".join(parts)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(_CHECKOUT)
    if isinstance(value, timedelta):
        value = duration_text(value)
    if isinstance(value, datetime):
        value = rfc3339(value)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int) and value >= _MIB and not value % _MIB:
        return f"`{value}` ({value // _MIB} MiB)"
    return f"`{value}`"


def dead_letter_reasons() -> str:
    """Every reason that a dead letter may have."""
    return table(["`reason`", "meaning"], [[f"`{item.value}`", item.meaning] for item in Reason])


def metrics() -> str:
    """What the workers count, without what the Prometheus client adds by itself."""
    rows = []
    for registry in (BridgeMetrics().registry, SinkMetrics().registry):
        rows += [
            [f"`{_exposed(metric)}`", metric.type, metric.documentation]
            for metric in registry.collect()
            if metric.name.startswith("headrace_")
        ]
    return table(["metric", "kind", "meaning"], rows)


def _exposed(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def retry_policies() -> str:
    """How often, how soon and for which errors each stage is tried again."""
    rows = [
        [
            f"`{stage}`",
            str(policy.tries),
            duration_text(policy.delay),
            f"x {policy.backoff:g}, at most {duration_text(policy.max_delay)}"
            if policy.backoff > 1
            else "",
            duration_text(policy.time_limit),
            ", ".join(f"`{error.__name__}`" for error in policy.never),
            policy.why,
        ]
        for stage, policy in POLICIES.items()
    ]
    header = ["stage", "tries", "delay", "backoff", "limit of one try", "never retried", "why"]
    return table(header, rows)


def permanent_errors() -> str:
    """The errors that no retry mends."""
    return table(
        ["error", "meaning"],
        [
            [f"`{error.__name__}`", (error.__doc__ or "").strip()]
            for error in PermanentError.__subclasses__()
        ],
    )


#: Made pieces, by the name that stands in a document's marker.
def benchmarks() -> str:
    """What `make bench` has measured."""
    if not RESULTS.exists():
        return "`make bench` has not been run yet."
    about = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = about["machine"]
    header, *rows = markdown_rows(RESULTS)
    return "\n\n".join(
        [
            (
                f"Measured on {machine['cores']} cores of {machine['cpu']}, "
                f"{machine['memory_gib']} GiB."
            ),
            table(header, rows),
            ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
        ]
    )


PIECES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "dead-letter-reasons": dead_letter_reasons,
    "metrics": metrics,
    "retry-policies": retry_policies,
    "permanent-errors": permanent_errors,
    "benchmarks": benchmarks,
}


def make_document(text: str) -> str:
    """Put the made pieces of a document where its markers are.

    Raises
    ------
    ConfigurationError
        If a marker names no piece, or has no end.
    """

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in PIECES:
            msg = f"there is no made piece {name!r}: native/docs.py has {', '.join(PIECES)}"
            raise ConfigurationError(msg)
        return f"{match[1]}\n{PIECES[name]()}\n\n{match[3]}"

    if text.count("<!-- made: ") != len(_PIECE.findall(text)):
        msg = "a marker <!-- made: ... --> has no <!-- end --> after it"
        raise ConfigurationError(msg)
    return _PIECE.sub(made, text)


def stale_documents(folder: Path) -> dict[Path, str]:
    """Documents whose made pieces are not what the code says now, and what they should be.

    Parameters
    ----------
    folder
        Where the documents are.
    """
    stale = {}
    for path in sorted(folder.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        try:
            made = make_document(text)
        except ConfigurationError as exc:
            msg = f"{path.relative_to(_CHECKOUT)}: {exc}"
            raise ConfigurationError(msg) from exc
        if made != text:
            stale[path] = made
    return stale


def main() -> None:
    """Write the made pieces; with ``--check`` only say whether they are as they should be."""
    parser = argparse.ArgumentParser(prog="python -m native.docs", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    try:
        stale = stale_documents(_CHECKOUT / "docs")
    except ConfigurationError as exc:
        sys.exit(f"headrace: {exc}")
    names = ", ".join(str(path.relative_to(_CHECKOUT)) for path in stale)
    if check and stale:
        sys.exit(f"headrace: {names}: the code says something else by now. Run `make docs`")
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {names}" if stale else "docs: what is made from the code is up to date")


if __name__ == "__main__":
    main()
