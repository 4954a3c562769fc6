"""Retries calls without a time limit while a server is unavailable."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_when_event_set,
    wait_exponential_jitter,
)
from tenacity.nap import sleep_using_event

from headrace.errors import FatalError, HeadraceError

__all__ = ["until_it_works"]


def until_it_works(
    report: Callable[[str], None], stop: threading.Event, *never: type[HeadraceError]
) -> Retrying:
    """Return a caller that retries a call until it succeeds and reports its errors.

    Parameters
    ----------
    report
        Receives the problem before each retry.
    stop
        If set, the next failure is raised.
    never
        Errors that are not retried, besides `FatalError`.
    """

    def report_failure(attempt: RetryCallState) -> None:
        if attempt.outcome is not None:
            report(str(attempt.outcome.exception()))

    return Retrying(
        retry=retry_if_exception_type(HeadraceError)
        & retry_if_not_exception_type((FatalError, *never)),
        wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.2),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=report_failure,
        reraise=True,
    )
