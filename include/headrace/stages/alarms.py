"""Alarm levels: InfluxDB evaluates each rule of the profile in Flux."""

from __future__ import annotations

import sys

from headrace.models.window import WindowRange
from headrace.stages.pipeline import Pipeline

__all__ = ["evaluate_alarms"]

#: Limits that no value reaches, for rules without one of them.
_UNREACHABLE = {"below": -sys.float_info.max, "above": sys.float_info.max}


def evaluate_alarms(windows: WindowRange, pipeline: Pipeline) -> dict[str, int]:
    """Write the level of every rule into every row of a range.

    Returns
    -------
    dict
        By rule: the number of rows that got a level.

    Raises
    ------
    BadQueryError
        If the Flux of a rule is wrong; the error names the file.
    ConfigurationError, AccessDeniedError, MissingResourceError, TransientError
        As `Pipeline.run`.
    """
    evaluated = {}
    for rule in pipeline.profile.alarms:
        rows = pipeline.run(
            rule.flux,
            {
                **pipeline.range_params(windows),
                **_UNREACHABLE,
                **rule.params,
                "tagged": pipeline.tagged,
                "writes": rule.writes,
                "level": rule.level,
                "normal": rule.normal,
            },
        )
        evaluated[rule.rule] = sum(row["_value"] for row in rows)
    return evaluated
