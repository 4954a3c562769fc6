"""Reading YAML written by hand: no entry twice, and nothing that grows out of bounds."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["parse_yaml"]

_LARGEST_FILE = 1 << 20
_DEEPEST = 20
#: With everything that aliases repeat. A profile has some hundreds.
_MOST_NODES = 50_000


class _Loader(yaml.CSafeLoader):
    """Libyaml's loader, which takes a tenth of the time, but refuses entries that stand twice."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as in PyYAML
    ) -> dict[Hashable, Any]:
        """Make a dictionary of a mapping."""
        # Merged entries (<<) come after this, and may be overridden.
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                msg = "a name must be text"
                raise yaml.constructor.ConstructorError(None, None, msg, key.start_mark)
            if (key.tag, key.value) in keys:
                msg = f"the entry {key.value} is given twice"
                raise yaml.constructor.ConstructorError(None, None, msg, key.start_mark)
            keys.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def parse_yaml(content: bytes) -> Any:
    """Parse one YAML document.

    Raises
    ------
    ValueError
        If it is no YAML, too large, too deep, or repeats an entry; the message says where.
    """
    if len(content) > _LARGEST_FILE:
        msg = f"the file is larger than {_LARGEST_FILE} bytes"
        raise ValueError(msg)
    try:
        _check_size(content)
        return yaml.load(content, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc
    except (OverflowError, TypeError, AttributeError, RecursionError, KeyError) as exc:
        # What YAML's own types make of odd scalars, such as a date in month 13.
        msg = f"a value can't be read: {exc}"
        raise ValueError(msg) from exc


def _check_size(content: bytes) -> None:
    """Count the nodes with all that aliases repeat, before anything is built of them."""
    total = 0
    #: Size of what each anchor names; `None` while it is still open.
    anchors: dict[str | None, int | None] = {}
    open_nodes: list[tuple[str | None, int]] = []
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        match event:
            case yaml.AliasEvent():
                size = anchors.get(event.anchor, 0)
                if size is None:
                    msg = f"the alias *{event.anchor} refers to itself"
                    raise ValueError(msg)
                total += size
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                open_nodes.append((event.anchor, total))
                anchors[event.anchor] = None
                total += 1
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                anchor, before = open_nodes.pop()
                anchors[anchor] = total - before
            case yaml.ScalarEvent():
                anchors[event.anchor] = 1
                total += 1
        if total > _MOST_NODES or len(open_nodes) > _DEEPEST:
            msg = f"the file has more than {_MOST_NODES} entries, or more than {_DEEPEST} levels"
            raise ValueError(msg)
