"""Identity of an installation, and its secret files in the state folder."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.settings import Settings

__all__ = ["installation_id", "write_secret"]

_FILE = "installation"
_ID = re.compile(r"[0-9a-f]{16}")


def installation_id(settings: Settings) -> str:
    """Return the id of this installation, created with the first provisioning.

    The descriptions of shared resources contain it, so that each installation changes only its
    own.

    Raises
    ------
    ConfigurationError
        If the file does not contain an id.
    """
    path = settings.state_dir / _FILE
    if not path.exists():
        # Servers that run as another user must be able to pass through this folder.
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        write_secret(path, secrets.token_hex(8))
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _ID.fullmatch(text):
        msg = (
            f"{path} must contain the 16 hexadecimal digits of this installation's id, but has "
            f"{text[:40]!r}. Restore the file, or delete it to create a new installation"
        )
        raise ConfigurationError(msg)
    return text


def write_secret(path: Path, secret: str) -> None:
    """Write a file that only its owner can read, atomically."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A unique name, because two processes can provision at once.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
