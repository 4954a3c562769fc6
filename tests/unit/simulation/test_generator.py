"""The simulated generator's values are within the ranges of the article."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random

from headrace.models.reading import ReadingCodec
from headrace.profile import Profile
from headrace.simulation.generator import Generator

BANDS = {
    range(1): ((160, 160), (0, 0)),
    range(1, 25): ((170, 190), (100, 500)),
    range(25, 50): ((190, 200), (500, 1100)),
    range(50, 75): ((200, 210), (1100, 2000)),
    range(75, 101): ((210, 300), (2000, 2600)),
}


def readings(seed: int, count: int) -> list[dict[str, float]]:
    generator = Generator("generator1", Random(seed))  # noqa: S311
    return [generator.read() for _ in range(count)]


def test_temperature_and_power_follow_the_load() -> None:
    for reading in readings(1, 3000):
        temperature, power = next(v for loads, v in BANDS.items() if int(reading["load"]) in loads)
        assert temperature[0] <= reading["temperature"] <= temperature[1]
        assert power[0] <= reading["power"] <= power[1]


def test_fuel_decreases_and_is_refilled() -> None:
    fuel = [reading["fuel"] for reading in readings(2, 500)]
    assert min(fuel) <= 0 < max(fuel)
    refilled = [now for before, now in pairwise(fuel) if now > before]
    assert len(refilled) > 10
    assert all(now > 300 for now in refilled)


def test_the_same_seed_gives_the_same_readings() -> None:
    assert readings(3, 50) == readings(3, 50)
    assert readings(3, 50) != readings(4, 50)


def test_every_reading_is_good_and_plausible(codec: ReadingCodec, profile: Profile) -> None:
    for reading in readings(5, 1000):
        codec.check(json.dumps(reading).encode(), "generator1", 0)
        for name, spec in profile.fields.items():
            assert spec.range[0] <= reading[name] <= spec.range[1], name
