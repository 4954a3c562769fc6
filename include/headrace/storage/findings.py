"""Results of `headrace provision --check`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FITS", "Finding"]

#: State of a finding without a problem.
FITS = "fits"


@dataclass(frozen=True)
class Finding:
    """The state of one topic, bucket or right.

    Parameters
    ----------
    what
        Kind and name.
    state
        `FITS` or the problem.
    step
        Commands or settings that correct it, one per line; empty if it fits.
    """

    what: str
    state: str = FITS
    step: str = ""

    @property
    def fits(self) -> bool:
        """Whether nothing needs to be done."""
        return self.state == FITS
