"""Gives every row its level for each alarm rule of the profile."""

from __future__ import annotations

from headrace.models.window import WindowRange
from headrace.stages.pipeline import Pipeline

__all__ = ["evaluate_alarms"]


def evaluate_alarms(windows: WindowRange, pipeline: Pipeline) -> dict[str, int]:
    """Write the level of each rule to every row of a range.

    Returns
    -------
    dict
        Number of rows with a new level, by rule.

    Raises
    ------
    BadQueryError
        If the Flux of a rule is wrong. The error names the file.
    TransientError, PermanentError
        As `headrace.stages.window_store.WindowStore`.
    """
    return {rule.rule: pipeline.store.evaluate(rule, windows) for rule in pipeline.profile.alarms}
