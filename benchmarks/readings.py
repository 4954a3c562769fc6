"""Readings of the benchmark: valid, numbered, and all of one length.

The number is the value of `fuel`, which both Kafka and InfluxDB store. The common length lets
the load generator handle thousands of packets at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["FIRST_NUMBER", "device", "fields", "lines", "payload"]

#: First number; all numbers have seven digits.
FIRST_NUMBER = 1_000_000
_FIRST_DEVICE = 10_001
_VARIANTS = 5000


def device(index: int) -> str:
    """Return the id of a generator from its index in the fleet."""
    return f"generator{_FIRST_DEVICE + index}"


def fields(number: int) -> dict[str, float]:
    """Return the values of a reading. Each has the same number of digits in every reading."""
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
    """Return a reading as its device sends it: about 150 bytes of JSON, without `time`."""
    values = fields(number)
    return (
        f'{{"generatorID": "{device(index)}", "lat": {values["lat"]:.5f}, '
        f'"lon": {values["lon"]:.5f}, "temperature": {values["temperature"]:.1f}, '
        f'"power": {values["power"]:.1f}, "load": {values["load"]:.1f}, '
        f'"fuel": {values["fuel"]}}}'
    ).encode()


def lines(measurement: str, id_field: str) -> Callable[[int, int, int], str]:
    """Return a function that encodes a reading as the sink does.

    Returns
    -------
    callable
        Takes the device's index in the fleet, a number, and the time in nanoseconds since
        the epoch. Values repeat after some thousand numbers.
    """
    values = [
        ",".join(f"{name}={value!r}" for name, value in fields(number).items())
        for number in range(_VARIANTS)
    ]

    def line(index: int, number: int, time_ns: int) -> str:
        return f"{measurement},{id_field}={device(index)} {values[number % _VARIANTS]} {time_ns}"

    return line
