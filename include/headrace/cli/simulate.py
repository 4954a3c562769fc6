"""``headrace simulate``: a fleet of generators."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import typer

from headrace.cli.app import app, run_worker
from headrace.errors import ConfigurationError
from headrace.settings import Settings

__all__: list[str] = []


@app.command()
def simulate(
    generators: int = typer.Option(50, min=1, max=20_000, help="Number of generators."),
    interval: str = typer.Option("5-15", help="Seconds between readings: shortest-longest."),
    seed: int = typer.Option(1, help="The same seed gives the same readings."),
    offline_chance: float = typer.Option(
        0.0,
        min=0.0,
        max=1.0,
        help="Probability, at each reading, that a generator loses its connection. It "
        "continues to measure, and sends those readings later with their own time.",
    ),
    offline: str = typer.Option("30-180", help="Seconds offline: shortest-longest."),
    qos: int = typer.Option(1, min=0, max=1, help="Quality of service of the readings."),
) -> None:
    """Simulate a fleet of emergency fuel generators until stopped."""
    from headrace.profile import load_profile
    from headrace.simulation.fleet import Fleet, FleetPlan
    from headrace.storage.mqtt import MqttAddress
    from headrace.storage.mqtt_logins import fleet_passwords

    plan = FleetPlan(
        size=generators,
        interval=_seconds("--interval", interval),
        seed=seed,
        offline_chance=offline_chance,
        offline_seconds=_seconds("--offline", offline),
        qos=qos,
    )

    def run(settings: Settings, stop: threading.Event) -> None:
        profile = load_profile(settings.profile)
        address = MqttAddress.from_settings(settings)
        passwords = fleet_passwords(settings)
        addresses = [
            replace(address, username=device, password=password)
            for device, password in passwords.items()
        ] or [address]
        if passwords and len(passwords) < generators:
            msg = (
                f"only {len(passwords)} simulated generators have a login. Raise "
                "HEADRACE_FLEET_SIZE and run `headrace provision`"
            )
            raise ConfigurationError(msg)
        Fleet(plan, profile.mqtt, addresses).run(stop)

    run_worker("simulate", run)


def _seconds(option: str, text: str) -> tuple[float, float]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", text)
    if match is None:
        msg = f"{option} {text!r}: write a range of seconds, such as 5-15"
        raise ConfigurationError(msg)
    least = float(match[1])
    greatest = float(match[2] or match[1])
    if least <= 0 or greatest < least:
        msg = (
            f"{option} {text!r}: the first number must be above 0, and the second at least as large"
        )
        raise ConfigurationError(msg)
    return least, greatest
