"""``headrace audit``, ``dead-letters`` and ``replay``: looking back, and sending again."""

from __future__ import annotations

import heapq
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.cli.app import app, start
from headrace.errors import ConfigurationError
from headrace.models.deadletter import Reason
from headrace.models.window import parse_time, rfc3339

if TYPE_CHECKING:
    from headrace.recovery.letters import Letter

__all__: list[str] = []

_NAMED = 20
_SHOWN_BYTES = 200
_FROM = typer.Option(..., "--from", metavar="TIME", help="Beginning, such as 2026-01-31T12:00:00Z.")
_TO = typer.Option(..., "--to", metavar="TIME", help="End, exclusive.")
_MAYBE_FROM = typer.Option(None, "--from", metavar="TIME", help="Beginning, by event time.")
_MAYBE_TO = typer.Option(None, "--to", metavar="TIME", help="End, exclusive.")


@app.command()
def audit(
    begin: str = _FROM,
    end: str = _TO,
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of a table."),
) -> None:
    """Count what became of the readings of a stretch of event time. Exits with 1 if any is lost."""
    from headrace.profile import load_profile
    from headrace.recovery.audit import audit as count
    from headrace.storage.influx import Influx, influx_address
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_log import held_records

    first, last = _stretch(begin, end)
    settings = start()
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    from headrace.cli.progress import counting

    with (
        Influx(influx_address(settings, "airflow")) as influx,
        counting("records and points", 2 * held_records(kafka, profile.topics.raw)) as tell,
    ):
        result = count(kafka, influx, profile, first, last, tell)
    content = result.as_dict()
    if as_json:
        sys.stdout.write(f"{json.dumps(content, indent=2)}\n")
    else:
        _show_audit(content)
    raise typer.Exit(1 if result.lost else 0)


@app.command("dead-letters")
def dead_letters(
    reason: str | None = typer.Option(None, help="Only those with this reason."),
    last: int = typer.Option(20, min=1, help="Show so many of the newest."),
) -> None:
    """Show the dead letters that were not sent through again, and how many there are of each."""
    from headrace.cli.progress import counting
    from headrace.profile import load_profile
    from headrace.recovery.letters import unanswered_letters
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_log import held_records

    _check_reason(reason)
    settings = start()
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    numbers: Counter[str] = Counter()
    newest: list[tuple[int, int, Letter]] = []
    with counting("dead letters", held_records(kafka, profile.topics.dead_letter)) as tell:
        for number, letter in enumerate(unanswered_letters(kafka, profile)):
            tell(1)
            if reason in (None, letter.reason):
                numbers[letter.reason] += 1
                keep = heapq.heappush if len(newest) < last else heapq.heappushpop
                keep(newest, (letter.record.timestamp_ms, number, letter))
    _show_letters(numbers, [letter for _, _, letter in sorted(newest, reverse=True)])


@app.command()
def replay(
    dead_letter: bool = typer.Option(False, "--dead-letter", help="Send dead letters again."),
    reason: str | None = typer.Option(None, help="Only dead letters with this reason."),
    begin: str | None = _MAYBE_FROM,
    end: str | None = _MAYBE_TO,
) -> None:
    """Send readings through again: dead letters, or a stretch of time from Kafka to InfluxDB."""
    from headrace.cli.progress import counting
    from headrace.ingest.factory import make_codec
    from headrace.profile import load_profile
    from headrace.recovery.replay import replay_dead_letters, replay_range
    from headrace.storage.influx import Influx, influx_address
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_log import held_records

    if dead_letter == (begin is not None or end is not None):
        msg = "replay takes either --dead-letter, or --from and --to"
        raise ConfigurationError(msg)
    if reason is not None and not dead_letter:
        msg = "--reason goes with --dead-letter"
        raise ConfigurationError(msg)
    _check_reason(reason)
    stretch = None if dead_letter else _stretch(begin or "", end or "")
    settings = start()
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    codec = make_codec(settings, profile)
    topic = profile.topics.dead_letter if dead_letter else profile.topics.raw
    with (
        Influx(influx_address(settings, "sink")) as influx,
        counting("records", held_records(kafka, topic)) as tell,
    ):
        if stretch is None:
            outcome = replay_dead_letters(kafka, influx, profile, codec, reason, tell)
        else:
            outcome = replay_range(kafka, influx, profile, codec, *stretch, tell)
    _show_outcome(outcome)


def _stretch(begin: str, end: str) -> tuple[datetime, datetime]:
    if not begin or not end:
        msg = "give both --from and --to"
        raise ConfigurationError(msg)
    first, last = parse_time(begin), parse_time(end)
    if first >= last:
        msg = f"--from {begin} must be before --to {end}"
        raise ConfigurationError(msg)
    return first, last


def _check_reason(reason: str | None) -> None:
    if reason is not None and reason not in set(Reason):
        msg = f"--reason {reason!r} is none of {', '.join(Reason)}"
        raise ConfigurationError(msg)


def _show_audit(content: Mapping[str, object]) -> None:
    console = Console()
    table = Table("what", "number", title=f"{content['from']} to {content['to']}")
    for name, label in (
        ("readings", "readings in Kafka"),
        ("points", "points in InfluxDB that they became"),
        ("overwritten", "readings overwritten by another with the same device and time"),
        ("repeated", "readings that came more than once"),
        ("refused", "readings that InfluxDB refused"),
        ("pending", "readings that the sink has not come to yet"),
        ("lost", "readings that are lost"),
        ("dead_letters", "dead letters, by bridge or sink"),
        ("foreign", "points that came from elsewhere"),
    ):
        table.add_row(label, str(content[name]))
    console.print(table)
    if not content["complete"]:
        console.print(f"[yellow]{content['note']}[/]")
    missing = content["missing"]
    if isinstance(missing, list) and missing:
        lost = Table("device", "time", title="Lost", title_justify="left")
        for item in missing[:_NAMED]:
            lost.add_row(item["device"], item["time"])
        console.print(lost)
        console.print("Kafka still holds them: `headrace replay --from ... --to ...` writes them")


def _show_letters(numbers: Counter[str], letters: Iterable[Letter]) -> None:
    console = Console()
    if not numbers:
        console.print("no dead letters that were not sent through again")
        return
    table = Table("received", "reason", "detail", "topic", "payload")
    for letter in letters:
        headers = letter.record.headers
        moment = datetime.fromtimestamp(letter.record.timestamp_ms / 1000, UTC)
        # Whatever a device sends, it is shown as text and moves no cursor.
        shown = (headers.get("detail", b""), headers.get("topic", b""), letter.record.value)
        table.add_row(
            rfc3339(moment.replace(microsecond=0)),
            letter.reason,
            *(Text(_readable(value[:_SHOWN_BYTES])) for value in shown),
        )
    console.print(table)
    counted = Table("reason", "dead letters")
    for reason, number in numbers.most_common():
        counted.add_row(reason, str(number))
    console.print(counted)
    console.print("when the cause is mended: `headrace replay --dead-letter --reason ...`")


def _readable(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _show_outcome(outcome: Counter[str]) -> None:
    table = Table("what", "readings")
    for name, number in sorted(outcome.items(), reverse=True):
        table.add_row(name, str(number))
    if not outcome:
        table.add_row("nothing to send", "0")
    Console().print(table)
