"""A simulated emergency fuel generator and its readings."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

__all__ = ["Generator"]


class _Band(NamedTuple):
    """Ranges of a generator's values above some load: integers, both ends included."""

    from_load: int
    temperature: tuple[int, int]
    power: tuple[int, int]
    fuel_used: tuple[int, int]


#: In order of falling load. The first band whose `from_load` is reached applies.
_BANDS = (
    _Band(75, (210, 300), (2000, 2600), (90, 130)),
    _Band(50, (200, 210), (1100, 2000), (75, 90)),
    _Band(25, (190, 200), (500, 1100), (50, 75)),
    _Band(1, (170, 190), (100, 500), (10, 50)),
    _Band(0, (160, 160), (0, 0), (0, 0)),
)
_FIRST_FUEL = (900, 1000)
_REFILL = (500, 1000)
#: A box within the contiguous United States.
_LATITUDES = (32.5, 42.0)
_LONGITUDES = (-114.0, -83.0)


@dataclass
class Generator:
    """A generator with a location, a varying load, and a fuel tank.

    Parameters
    ----------
    device
        Its id.
    random
        Source of random numbers. The same seed gives the same readings.
    """

    device: str
    random: Random
    lat: float = field(init=False)
    lon: float = field(init=False)
    fuel: int = field(init=False)

    def __post_init__(self) -> None:
        self.lat = round(self.random.uniform(*_LATITUDES), 5)
        self.lon = round(self.random.uniform(*_LONGITUDES), 5)
        self.fuel = self.random.randint(*_FIRST_FUEL)

    def read(self) -> dict[str, Any]:
        """Take a reading: the load, the values that depend on it, and the fuel."""
        load = self.random.randint(0, 100)
        band = next(band for band in _BANDS if load >= band.from_load)
        if self.fuel:
            self.fuel = max(0, self.fuel - self.random.randint(*band.fuel_used))
        else:
            self.fuel = self.random.randint(*_REFILL)
        return {
            "generatorID": self.device,
            "lat": self.lat,
            "lon": self.lon,
            "temperature": self.random.randint(*band.temperature),
            "power": self.random.randint(*band.power),
            "load": load,
            "fuel": self.fuel,
        }
