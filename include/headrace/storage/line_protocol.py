"""InfluxDB's line protocol: one point as a line of text."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["escape_tag", "point_line"]

_TAG_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_TEXT_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\""})


def escape_tag(value: str) -> str:
    """Escape the value of a tag.

    Some texts cannot be the value of a tag, escaped or not: see
    `headrace.models.device_id.is_unwritable`.
    """
    return value.translate(_TAG_ESCAPES)


def point_line(
    measurement: str,
    tags: Mapping[str, str],
    fields: Mapping[str, bool | float | str],
    time_ns: int,
) -> str:
    """Write a point as a line.

    Parameters
    ----------
    measurement
        Its measurement: a name, as are those of its tags and fields.
    tags
        Tags by name.
    fields
        Fields by name. An `int` is stored as an integer, a `float` as a float.
    time_ns
        Its time, in nanoseconds since the epoch.
    """
    series = "".join(f",{name}={escape_tag(value)}" for name, value in tags.items())
    values = ",".join(f"{name}={_field(value)}" for name, value in fields.items())
    return f"{measurement}{series} {values} {time_ns}"


def _field(value: bool | float | str) -> str:  # noqa: FBT001
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value}i"
        case float():
            return repr(value)
        case _:
            return f'"{value.translate(_TEXT_ESCAPES)}"'
