"""Checks of numbers, texts and secrets: the allowed values, and conversion of the input.

A check is part of the annotation of a setting or profile entry::

    port: Annotated[int, Whole(1, 65535)]

pydantic calls the check with the input. `headrace.checks.explain` uses its allowed range in
the error message, and the tests enumerate all checks.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from abc import ABC, abstractmethod
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler, SecretStr
from pydantic_core import CoreSchema, core_schema

__all__ = [
    "Check",
    "Choices",
    "ExistingFile",
    "FernetKey",
    "Folder",
    "NotAllowedError",
    "Number",
    "OneOf",
    "Prose",
    "Range",
    "Secret",
    "Switch",
    "Text",
    "Whole",
    "is_printable",
]

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_SWITCHES = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_FERNET_BYTES = 32


class NotAllowedError(ValueError):
    """A value is not allowed, for the reason in `Check.allowed`."""


class Check(ABC):
    """Checks one value.

    Parameters
    ----------
    allowed
        The allowed values, as a phrase after "Write", such as "a whole number from 1 to 5".
    """

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    @abstractmethod
    def read(self, value: object) -> Any:
        """Convert the input to a value.

        Raises
        ------
        ValueError
            If the value is not allowed; the message can give the reason.
        """

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Make pydantic call only `read`, except for an allowed `None`."""
        del handler
        schema = core_schema.no_info_plain_validator_function(self.read)
        return core_schema.nullable_schema(schema) if NoneType in get_args(source) else schema


class Whole(Check):
    """A whole number from `low` to `high`.

    The environment contains only text; in YAML, text is not a number.
    """

    def __init__(self, low: int, high: int, *, from_text: bool = True) -> None:
        super().__init__(f"a whole number from {low} to {high}")
        self.low, self.high = low, high
        self._from_text = from_text

    def read(self, value: object) -> int:
        """Read a number, or the text of a number."""
        if self._from_text and isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise NotAllowedError
        if not self.low <= value <= self.high:
            raise NotAllowedError
        return value


class Number(Check):
    """A finite number from `low` to `high`, written as a number."""

    def __init__(self, low: float, high: float, what: str = "a number") -> None:
        super().__init__(f"{what} from {low:g} to {high:g}")
        self.low, self.high = low, high

    def read(self, value: object) -> float:
        """Read a number. Text and truth values are refused."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise NotAllowedError
        # Compare before conversion: an integer can be too large for a float.
        if not self.low <= value <= self.high:
            raise NotAllowedError
        return float(value)


class Range(Check):
    """Two finite numbers, the lower one first."""

    def __init__(self) -> None:
        super().__init__("two numbers, the lower one first, such as [0, 100]")

    def read(self, value: object) -> tuple[float, float]:
        """Read a list of two numbers."""
        if not isinstance(value, list | tuple) or len(value) != 2:  # noqa: PLR2004
            raise NotAllowedError
        number = Number(-1e300, 1e300)
        low, high = number.read(value[0]), number.read(value[1])
        if not low < high or not math.isfinite(high - low):
            raise NotAllowedError
        return low, high


class Text(Check):
    """Text that matches a pattern, or any printable text of limited length."""

    def __init__(self, allowed: str, pattern: str | None = None, longest: int = 1000) -> None:
        super().__init__(allowed)
        self._pattern = re.compile(pattern) if pattern else None
        self._longest = longest

    def read(self, value: object) -> str:
        """Read text. Numbers and truth values are refused."""
        if not isinstance(value, str) or not 0 < len(value) <= self._longest:
            raise NotAllowedError
        if not is_printable(value) or (self._pattern and not self._pattern.fullmatch(value)):
            raise NotAllowedError
        return value


class Prose(Check):
    """Text for people, with one or several lines."""

    def __init__(self, longest: int) -> None:
        super().__init__(f"text of at most {longest} characters")
        self._longest = longest

    def read(self, value: object) -> str:
        """Read text."""
        if not isinstance(value, str) or len(value) > self._longest:
            raise NotAllowedError
        if not all(is_printable(line) for line in value.split("\n")):
            raise NotAllowedError
        return value


class OneOf(Check):
    """A member of an enumeration, written as its value."""

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__(f"one of {', '.join(members)}")
        self._members = members

    def read(self, value: object) -> StrEnum:
        """Read the value of a member."""
        if not isinstance(value, str) or value not in set(self._members):
            raise NotAllowedError
        return self._members(value)


class Choices(Check):
    """Members of an enumeration, written as comma-separated values, each at most once."""

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__(f"one or more of {', '.join(members)}, comma-separated")
        self._one = OneOf(members)

    def read(self, value: object) -> tuple[StrEnum, ...]:
        """Read the values of members."""
        if isinstance(value, tuple):
            return tuple(self._one.read(item) for item in value)
        if not isinstance(value, str):
            raise NotAllowedError
        found = tuple(self._one.read(item.strip()) for item in value.split(","))
        if len(set(found)) < len(found):
            msg = "one is given twice"
            raise ValueError(msg)
        return found


class Switch(Check):
    """True or false."""

    def __init__(self, *, from_text: bool = True) -> None:
        super().__init__("true or false")
        self._from_text = from_text

    def read(self, value: object) -> bool:
        """Read a truth value, or the text of one."""
        if self._from_text and isinstance(value, str) and value.strip().lower() in _SWITCHES:
            return _SWITCHES[value.strip().lower()]
        if not isinstance(value, bool):
            raise NotAllowedError
        return value


class Secret(Check):
    """A secret of limited length without control characters."""

    def __init__(self, shortest: int = 1, longest: int = 1000, *, plain: bool = False) -> None:
        marks = " of letters, digits and punctuation, without spaces" if plain else ""
        super().__init__(f"{shortest} to {longest} characters{marks}, all on one line")
        self._shortest, self._longest, self._plain = shortest, longest, plain

    def read(self, value: object) -> SecretStr:
        """Read text."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str) or not self._shortest <= len(text) <= self._longest:
            raise NotAllowedError
        if not is_printable(text) or (self._plain and not (text.isascii() and " " not in text)):
            raise NotAllowedError
        return SecretStr(text)


class FernetKey(Secret):
    """A key for Fernet encryption."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = "32 bytes in URL-safe base64, as `make env` writes them"

    def read(self, value: object) -> SecretStr:
        """Read the text of a key."""
        key = super().read(value)
        try:
            decoded = base64.urlsafe_b64decode(key.get_secret_value().encode())
        except binascii.Error as exc:
            raise NotAllowedError from exc
        if len(decoded) != _FERNET_BYTES:
            raise NotAllowedError
        return key


class ExistingFile(Check):
    """The path of an existing file."""

    def __init__(self) -> None:
        super().__init__("the path of a file that exists")

    def read(self, value: object) -> Path:
        """Read a path and check that the file exists."""
        path = _path(value)
        try:
            if path.is_file():
                return path
        except OSError as exc:
            raise ValueError(exc.strerror) from exc
        raise NotAllowedError


class Folder(Check):
    """The path of a folder that exists or, if allowed, can be created."""

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(f"the path of a folder{' that exists' if exists else ''}")
        self._exists = exists

    def read(self, value: object) -> Path:
        """Read a path and check that it is a folder or below a folder."""
        path = _path(value)
        try:
            present = next(item for item in (path, *path.absolute().parents) if item.exists())
            if not present.is_dir() or (self._exists and present != path):
                raise NotAllowedError
        except OSError as exc:
            raise ValueError(exc.strerror) from exc
        return path


def _path(value: object) -> Path:
    text = str(value) if isinstance(value, Path) else value
    if not isinstance(text, str) or not text or not is_printable(text):
        raise NotAllowedError
    return Path(text)


def is_printable(text: str) -> bool:
    """Return whether a text has no control characters and can be encoded in UTF-8."""
    return not any(
        ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000  # noqa: PLR2004
        for char in text
    )
