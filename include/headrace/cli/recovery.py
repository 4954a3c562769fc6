"""``headrace audit``, ``dead-letters`` and ``replay``."""

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
from headrace.cli.text import shown
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
    """Count the readings of a range of event time: stored, rejected, pending or lost.

    Exits with 1 if a reading is lost.
    """
    from headrace.cli.progress import counting
    from headrace.profile import load_profile
    from headrace.recovery.audit import audit as count
    from headrace.recovery.raw_records import arrival_margin
    from headrace.storage.influx import Influx, influx_address
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_log import held_records

    first, last = _range(begin, end)
    settings = start()
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)

    with (
        Influx(influx_address(settings, "airflow")) as influx,
        counting("records and points", 2 * held_records(kafka, profile.topics.raw)) as tell,
    ):
        result = count(kafka, influx, profile, first, last, arrival_margin(settings), tell)
    content = result.as_dict()
    if as_json:
        sys.stdout.write(f"{json.dumps(content, indent=2)}\n")
    else:
        _show_audit(content)
    raise typer.Exit(0 if result.nothing_lost else 1)


@app.command("dead-letters")
def dead_letters(
    reason: str | None = typer.Option(None, help="Only those with this reason."),
    last: int = typer.Option(20, min=1, help="Number of dead letters to show."),
) -> None:
    """Show the newest dead letters that were not sent again, and their number by reason."""
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
    """Send readings again: dead letters, or a range of event time from Kafka to InfluxDB.

    An interrupted replay can be run again. It sends nothing twice.
    """
    from headrace.cli.progress import counting
    from headrace.ingest.factory import make_codec
    from headrace.profile import load_profile
    from headrace.recovery.raw_records import arrival_margin
    from headrace.recovery.replay import replay_dead_letters, replay_range
    from headrace.storage.influx import Influx, influx_address
    from headrace.storage.influx_readings import InfluxReadingStore
    from headrace.storage.kafka import Kafka
    from headrace.storage.kafka_log import held_records

    if dead_letter == (begin is not None or end is not None):
        msg = "replay takes either --dead-letter, or --from and --to"
        raise ConfigurationError(msg)
    if reason is not None and not dead_letter:
        msg = "--reason requires --dead-letter"
        raise ConfigurationError(msg)
    _check_reason(reason)
    between = None if dead_letter else _range(begin or "", end or "")
    settings = start()
    profile = load_profile(settings.profile)
    kafka = Kafka.from_settings(settings)
    codec = make_codec(settings, profile)
    topic = profile.topics.dead_letter if dead_letter else profile.topics.raw
    with (
        Influx(influx_address(settings, "sink")) as influx,
        counting("records", held_records(kafka, topic)) as tell,
    ):
        store = InfluxReadingStore(influx, profile)
        if between is None:
            outcome = replay_dead_letters(
                kafka, store, profile, codec, reason, settings.max_time_ahead, tell
            )
        else:
            margin = arrival_margin(settings)
            outcome = replay_range(kafka, store, profile, *between, margin, tell)
    _show_outcome(outcome)


def _range(begin: str, end: str) -> tuple[datetime, datetime]:
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
        msg = f"--reason {reason!r} is unknown. Write one of {', '.join(Reason)}"
        raise ConfigurationError(msg)


def _show_audit(content: Mapping[str, object]) -> None:
    console = Console()
    table = Table("what", "number", title=f"{content['from']} to {content['to']}")
    for name, label in (
        ("readings", "readings in Kafka"),
        ("points", "their points in InfluxDB"),
        ("overwritten", "readings overwritten by another with the same device and time"),
        ("repeated", "readings that arrived more than once"),
        ("refused", "readings that the sink rejected"),
        ("pending", "readings that the sink has not reached yet"),
        ("lost", "readings that are lost"),
        ("dead_letters", "dead letters of bridge and sink"),
        ("foreign", "points without a record in Kafka"),
        ("skipped", "records of other programs among the dead letters, skipped"),
    ):
        table.add_row(label, str(content[name]))
    console.print(table)
    if not content["complete"]:
        console.print(Text(str(content["note"]), style="yellow"))
    missing = content["missing"]
    if isinstance(missing, list) and missing:
        lost = Table("device", "time", title="Lost", title_justify="left")
        for item in missing[:_NAMED]:
            lost.add_row(shown(item["device"]), item["time"])
        console.print(lost)
        console.print("They are still in Kafka: `headrace replay --from ... --to ...` writes them")
    deleted = content["deleted"]
    if isinstance(deleted, list) and deleted:
        table = Table("topic", "partition", "offsets", "what happened", title="Deleted records")
        for item in deleted[:_NAMED]:
            offsets = f"{item['start']} to {item['stop'] - 1}"
            detail = shown(item["detail"])
            table.add_row(shown(item["topic"]), str(item["partition"]), offsets, detail)
        console.print(table)
        console.print(
            "Kafka deleted these records before the sink wrote them, so they can't be replayed. "
            "Keep the sink running, or raise HEADRACE_KAFKA_RETENTION"
        )


def _show_letters(numbers: Counter[str], letters: Iterable[Letter]) -> None:
    console = Console()
    if not numbers:
        console.print("no dead letters, except those that were sent again")
        return
    table = Table("received", "reason", "detail", "topic", "payload")
    for letter in letters:
        headers = letter.record.headers
        moment = datetime.fromtimestamp(letter.record.timestamp_ms / 1000, UTC)
        values = (headers.get("detail", b""), headers.get("topic", b""), letter.record.value)
        table.add_row(
            rfc3339(moment.replace(microsecond=0)),
            letter.reason,
            *(shown(value[:_SHOWN_BYTES]) for value in values),
        )
    console.print(table)
    counted = Table("reason", "dead letters")
    for reason, number in numbers.most_common():
        counted.add_row(reason, str(number))
    console.print(counted)
    console.print("after the cause is fixed: `headrace replay --dead-letter --reason ...`")


def _show_outcome(outcome: Counter[str]) -> None:
    table = Table("what", "readings")
    for name, number in sorted(outcome.items(), reverse=True):
        table.add_row(name, str(number))
    if not outcome:
        table.add_row("nothing to send", "0")
    Console().print(table)
