"""Text that devices or other programs chose, for a terminal."""

from __future__ import annotations

from rich.text import Text

__all__ = ["shown"]


def shown(value: str | bytes, style: str = "") -> Text:
    """Return text for `rich` that is printed as it is.

    Square brackets are no markup, and control characters are escaped, so that whatever a
    device sends neither changes colours nor moves the cursor.
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return Text(
        "".join(char if char.isprintable() else repr(char)[1:-1] for char in text), style=style
    )
