"""Prepares text from devices and other programs for a terminal."""

from __future__ import annotations

from rich.text import Text

__all__ = ["shown"]


def shown(value: str | bytes, style: str = "") -> Text:
    """Return text that `rich` prints literally.

    Square brackets are not markup, and control characters are escaped. So text from a device
    can neither change colours nor move the cursor.
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return Text(
        "".join(char if char.isprintable() else repr(char)[1:-1] for char in text), style=style
    )
