"""The readings that the benchmark sends: valid, numbered, and all of one length.

The number stands in the field `fuel`, where Kafka and InfluxDB both show it. One length
for all lets the load generator handle packets by the thousand instead of one by one.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["FIRST_NUMBER", "device", "fields", "lines", "payload"]

#: Numbers begin here, so that all have seven digits.
FIRST_NUMBER = 1_000_000
_FIRST_DEVICE = 10_001
_VARIANTS = 5000


def device(index: int) -> str:
    """Id of a generator, by its place in the fleet."""
    return f"generator{_FIRST_DEVICE + index}"


def fields(number: int) -> dict[str, float]:
    """Values of a reading; each has the same number of digits in every reading."""
    chance = random.Random(number)  # noqa: S311 - a load, not a secret
    return {
        "lat": chance.randrange(25_00001, 49_00000, 2) / 1e5,
        "lon": -chance.randrange(65_00001, 99_00000, 2) / 1e5,
        "temperature": chance.randrange(1001, 2900, 2) / 10,
        "power": chance.randrange(10_001, 49_000, 2) / 10,
        "load": chance.randrange(101, 999, 2) / 10,
        "fuel": FIRST_NUMBER + number,
    }


def payload(index: int, number: int) -> bytes:
    """A reading as its device sends it: about 150 bytes of JSON, without `time`."""
    values = fields(number)
    return (
        f'{{"generatorID": "{device(index)}", "lat": {values["lat"]:.5f}, '
        f'"lon": {values["lon"]:.5f}, "temperature": {values["temperature"]:.1f}, '
        f'"power": {values["power"]:.1f}, "load": {values["load"]:.1f}, '
        f'"fuel": {values["fuel"]}}}'
    ).encode()


def lines(measurement: str, id_field: str) -> Callable[[int, int, int], str]:
    """Make a function that writes a reading as a line for InfluxDB, as the sink does.

    Returns
    -------
    callable
        Takes the device's place in the fleet, a number and the time in nanoseconds since
        the epoch. Values come round after some thousand numbers.
    """
    values = [
        ",".join(f"{name}={value!r}" for name, value in fields(number).items())
        for number in range(_VARIANTS)
    ]

    def line(index: int, number: int, time_ns: int) -> str:
        return f"{measurement},{id_field}={device(index)} {values[number % _VARIANTS]} {time_ns}"

    return line
