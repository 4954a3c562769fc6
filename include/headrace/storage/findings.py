"""What `headrace provision --check` finds about one topic, bucket or right."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FITS", "Finding"]

#: State of what is as it has to be.
FITS = "fits"


@dataclass(frozen=True)
class Finding:
    """One topic, bucket or right.

    Parameters
    ----------
    what
        Its kind and name.
    state
        `FITS`, or what is wrong.
    step
        The commands or settings that correct it, one on each line; empty if it fits.
    """

    what: str
    state: str = FITS
    step: str = ""

    @property
    def fits(self) -> bool:
        """Whether nothing has to be done."""
        return self.state == FITS
