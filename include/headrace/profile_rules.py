"""Alarm rules of a profile and the parameters of their Flux files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headrace.checks.explain import did_you_mean
from headrace.checks.values import Check, NotAllowedError, Number, Text
from headrace.errors import ConfigurationError

__all__ = ["THRESHOLD_FLUX", "AlarmRule", "Name", "check_flux_files", "check_params"]

#: The built-in rule: a field is below or above a limit.
THRESHOLD_FLUX = "alarm_threshold.flux"
_LIMITS = ("below", "above")
#: Parameters that every Flux file receives and a rule must not replace.
_GIVEN = frozenset(
    {
        "downsampled",
        "raw",
        "quality",
        "measurement",
        "start",
        "stop",
        "window",
        "tagged",
        "writes",
        "level",
        "normal",
    }
)

NameText = Text(
    "a letter, then letters, digits and underscores, at most 64 in all",
    r"[A-Za-z][A-Za-z0-9_]{0,63}",
)
#: Name of a field, tag, rule or parameter, which line protocol and Flux need not escape.
Name = Annotated[str, NameText]
_LevelText = Text("text of 1 to 200 printable characters", longest=200)


class Params(Check):
    """Parameters of a Flux file: text or finite numbers, by name."""

    def __init__(self) -> None:
        super().__init__("names with texts or finite numbers, such as {field: fuel, below: 500}")

    def read(self, value: object) -> dict[str, str | float]:
        """Read the parameters."""
        if not isinstance(value, dict):
            raise NotAllowedError
        read: dict[str, str | float] = {}
        text, number = Text("text"), Number(-1e300, 1e300)
        for name, item in value.items():
            if NameText.read(name) in _GIVEN:
                msg = f"{name} is given to every rule, and can't be a parameter of this one"
                raise ValueError(msg)
            try:
                read[name] = text.read(item) if isinstance(item, str) else number.read(item)
            except NotAllowedError:
                msg = f"{name} is neither text nor a finite number"
                raise ValueError(msg) from None
        return read


class AlarmRule(BaseModel):
    """A rule that gives every downsampled row a level."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Name
    writes: Name
    flux: Annotated[
        str,
        Text("the name of a Flux file, such as alarm_threshold.flux", r"[a-z0-9_]{1,100}\.flux"),
    ]
    params: Annotated[dict[str, str | float], Params()] = Field(default_factory=dict)
    level: Annotated[str, _LevelText]
    normal: Annotated[str, _LevelText]

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        if self.level == self.normal:
            msg = f"level and normal of rule {self.rule} are both {self.level!r}; they must differ"
            raise ValueError(msg)
        return self


def check_params(rule: AlarmRule, fields: Iterable[str]) -> None:
    """Check the parameters of a rule that uses the built-in Flux file.

    The parameters of other Flux files are unknown.

    Raises
    ------
    ValueError
        If a parameter is unknown, missing or of the wrong kind.
    """
    if rule.flux != THRESHOLD_FLUX:
        return
    where = f"alarms, rule {rule.rule}: params"
    known = ("field", *_LIMITS)
    for name in rule.params:
        if name not in known:
            hint = did_you_mean(name, known, f"{THRESHOLD_FLUX} takes {', '.join(known)}")
            msg = f"{where}.{name}: unknown parameter; {hint}"
            raise ValueError(msg)
    field = rule.params.get("field")
    if field not in set(fields):
        hint = did_you_mean(str(field), fields, f"the fields are {', '.join(fields)}")
        msg = f"{where}.field: {field!r} is not a field of the profile; {hint}"
        raise ValueError(msg)
    limits = {name: rule.params[name] for name in _LIMITS if name in rule.params}
    for name, limit in limits.items():
        if isinstance(limit, str):
            msg = f"{where}.{name}: {limit!r} is not allowed. Write a finite number, unquoted"
            raise ValueError(msg)  # noqa: TRY004 - pydantic reports a ValueError
    if not limits:
        msg = f"{where}: neither below nor above is given, so the rule would never raise an alarm"
        raise ValueError(msg)
    if len(limits) > 1 and not float(limits["below"]) < float(limits["above"]):
        msg = (
            f"{where}: below ({limits['below']:g}) must be lower than above "
            f"({limits['above']:g}), or every value is an alarm"
        )
        raise ValueError(msg)


def check_flux_files(rules: Iterable[AlarmRule], folder: Path) -> None:
    """Check that the Flux files of the rules exist.

    Raises
    ------
    ConfigurationError
        If a file is missing. The message names the rule and the file.
    """
    for rule in rules:
        if not (folder / rule.flux).is_file():
            msg = (
                f"alarms, rule {rule.rule}: there is no Flux file {folder / rule.flux}. Correct "
                "the entry flux of the profile, or set HEADRACE_FLUX_DIR"
            )
            raise ConfigurationError(msg)
