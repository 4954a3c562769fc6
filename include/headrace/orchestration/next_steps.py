"""The next step for each kind of error, which is the last sentence of a mail."""

from __future__ import annotations

from headrace.errors import (
    AccessDeniedError,
    BadQueryError,
    ConfigurationError,
    MissingResourceError,
    QualityError,
    RawDataGoneError,
    RefusedError,
    TransientError,
)

__all__ = ["next_step"]

_CLEAR = "Then clear the failed task in Airflow's UI, or let the next reconcile run compute it."

#: The first matching entry applies.
_STEPS: dict[type[BaseException], str] = {
    AccessDeniedError: "Check the token or login in the Airflow Connection of the server that the "
    f"error names. `headrace provision` writes missing tokens. {_CLEAR}",
    RawDataGoneError: "The range cannot be computed again. Choose a start within "
    "HEADRACE_RAW_RETENTION.",
    MissingResourceError: f"Run `headrace provision`: it creates what is missing. {_CLEAR}",
    BadQueryError: "Correct the Flux file that the error names, in the folder HEADRACE_FLUX_DIR. "
    f"{_CLEAR}",
    ConfigurationError: f"Correct the setting or parameter that the error names. {_CLEAR}",
    QualityError: "Look at the failed checks in the table, and at the devices that it lists. The "
    "windows are still computed and published.",
    RefusedError: f"Read in the log what the server refused, and correct it. {_CLEAR}",
    TransientError: "Run `headrace status` to see which server is unavailable, and start it "
    "again. The next reconcile run computes what is missing.",
}
_OTHERWISE = (
    "Open the log. If the worker was killed, look at the memory and the disk of the machine. The "
    "next reconcile run computes what is missing."
)


def next_step(error: object) -> str:
    """Return what to do about an error, in one or two sentences."""
    for kind, step in _STEPS.items():
        if isinstance(error, kind):
            return step
    return _OTHERWISE
