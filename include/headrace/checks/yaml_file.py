"""Reads YAML that people write. Refuses duplicate entries and limits the size."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["parse_yaml"]

_LARGEST_FILE = 1 << 20
_DEEPEST = 20
#: Maximum number of nodes, including those that aliases repeat. A profile has some hundreds.
_MOST_NODES = 50_000


class _Loader(yaml.CSafeLoader):
    """Libyaml's loader, ten times as fast as the default one, but without duplicate entries."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as in PyYAML
    ) -> dict[Hashable, Any]:
        """Convert a mapping to a dictionary."""
        # Merged entries (<<) are added later and can be overridden.
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
        If it is not YAML, too large, too deep, or has a duplicate entry; the message has the place.
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
        # For example a date in month 13, which YAML's types refuse.
        msg = f"a value can't be read: {exc}"
        raise ValueError(msg) from exc


def _check_size(content: bytes) -> None:
    """Count the nodes, including those that aliases repeat, before building objects."""
    total = 0
    #: Size of each anchor's node; `None` while the node is still open.
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
