"""``python -m tools.docs`` writes the parts of the documents that are generated from code.

A marker in a document names the generated piece::

    <!-- made: settings -->
    ...
    <!-- end -->

To add a piece, write a function that returns Markdown and add it to `PIECES`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from headrace.errors import ConfigurationError
from tools.docs_benchmarks import benchmarks, peers
from tools.docs_logs import log_messages
from tools.docs_profile import profile
from tools.docs_reference import (
    cli,
    dead_letter_reasons,
    kafka_acls,
    make_targets,
    metrics,
    permanent_errors,
    retry_policies,
    settings,
)

__all__ = ["PIECES", "documents", "make_document", "stale_documents"]

_CHECKOUT = Path(__file__).resolve().parents[1]
_PIECE = re.compile(r"(<!-- made: (?P<name>[^ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: Pieces by their name in markers.
PIECES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "profile": profile,
    "cli": cli,
    "make-targets": make_targets,
    "dead-letter-reasons": dead_letter_reasons,
    "metrics": metrics,
    "log-messages": log_messages,
    "retry-policies": retry_policies,
    "permanent-errors": permanent_errors,
    "kafka-acls": kafka_acls,
    "benchmarks": benchmarks,
    "peers": peers,
}


def documents() -> list[Path]:
    """Return all documents of the checkout."""
    return sorted([*_CHECKOUT.glob("*.md"), *(_CHECKOUT / "docs").rglob("*.md")])


def make_document(text: str) -> str:
    """Return a document with new text between its markers.

    Raises
    ------
    ConfigurationError
        If a marker names no piece or has no end.
    """

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in PIECES:
            msg = f"no piece is named {name!r}: tools/docs.py has {', '.join(PIECES)}"
            raise ConfigurationError(msg)
        return f"{match[1]}\n{PIECES[name]()}\n\n{match[3]}"

    if text.count("<!-- made: ") != len(_PIECE.findall(text)):
        msg = "a marker <!-- made: ... --> has no <!-- end --> after it"
        raise ConfigurationError(msg)
    return _PIECE.sub(made, text)


def stale_documents(paths: Iterable[Path]) -> dict[Path, str]:
    """Find outdated documents.

    Returns
    -------
    dict
        Correct text by path of each outdated document.
    """
    stale = {}
    for path in paths:
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
    """Write the generated parts of the documents."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    check = parser.parse_args().check
    try:
        stale = stale_documents(documents())
    except ConfigurationError as exc:
        sys.exit(f"headrace: {exc}")
    names = ", ".join(str(path.relative_to(_CHECKOUT)) for path in stale)
    if check and stale:
        sys.exit(f"headrace: {names}: differs from the code. Run `make docs`")
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {names}" if stale else "docs: up to date with the code")


if __name__ == "__main__":
    main()
