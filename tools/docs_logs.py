"""Generates the log reference: every warning and error that the code logs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.docs_tables import table

__all__ = ["EXPLANATIONS", "LogMessage", "log_messages", "logged"]

_PACKAGE = Path(__file__).resolve().parents[1] / "include" / "headrace"
_LEVELS = {"warning": "warning", "error": "error", "exception": "error", "critical": "error"}
_LOGGERS = {"_log", "log", "logger", "_logger"}

#: Meaning and action for each message. A test fails if a message is missing.
EXPLANATIONS: dict[str, tuple[str, str]] = {
    "broker lost the session": (
        (
            "The broker has lost the session of the bridge, and with it the messages "
            "that it had queued for it."
        ),
        "Turn on persistence at the broker; check `HEADRACE_MQTT_SESSION_EXPIRY`.",
    ),
    "session probably taken over by another client": (
        (
            "The broker closed the connection without a reason and accepts new ones. mosquitto 2.0 "
            "does so when another client takes the session. The bridge waits before it connects "
            "again."
        ),
        "Give each bridge its own `HEADRACE_BRIDGE_ID`; otherwise check the broker's log.",
    ),
    "broker grants less than requested": (
        (
            "The broker refuses or shortens something that the bridge asked for. `shortfall` says "
            "what it costs. Logged at every connection."
        ),
        "Change the broker's configuration, or accept the cost.",
    ),
    "clock jumped": (
        (
            "The system clock jumped by `seconds`. Readings without `time` that were stamped "
            "meanwhile have the wrong event time."
        ),
        "Check the time synchronisation of the bridge's host.",
    ),
    "Kafka does not accept records, retrying": (
        (
            "Kafka rejects records for a reason that does not concern their content, such as "
            "denied access or a missing topic. `problem` names the topic."
        ),
        "Correct what `problem` says; for missing topics run `headrace provision`.",
    ),
    "progress of the sink is unknown": (
        "Kafka did not report the sink's offsets. The window waits until its time limit.",
        "Check that Kafka is running.",
    ),
    "new device refused: limit reached": (
        (
            "A device id is new, and `HEADRACE_MAX_NEW_DEVICES` or `HEADRACE_MAX_DEVICES` is "
            "reached. Its readings become dead letters with the reason `too_many_devices`."
        ),
        (
            "If the devices are real, raise the limit, restart the bridge, and replay the dead "
            "letters. If not, find the client that invents ids."
        ),
    ),
    "range cut at the last window that has ended": (
        "A manual run was started for a range that ends in the future.",
        "Nothing; start another run for the rest later.",
    ),
    "records deleted before they were written": (
        (
            "Kafka's retention deleted records before the sink wrote them: readings are lost. The "
            "fields name the offsets."
        ),
        (
            "Keep the sink running, or raise `HEADRACE_KAFKA_RETENTION`. `headrace audit` lists "
            "all losses."
        ),
    ),
    "stopped before all readings were written; Kafka keeps them": (
        (
            "The sink's `HEADRACE_DRAIN_LIMIT` ended before InfluxDB had stored everything. The "
            "next start writes these readings."
        ),
        "Nothing.",
    ),
    "sink is behind at the time limit": (
        (
            "The sink was still behind after `HEADRACE_SETTLE_LIMIT`. The windows are computed "
            "from the readings stored so far."
        ),
        "Nothing; the next reconcile run computes them again. If it repeats, check the sink's lag.",
    ),
    "triggerer did not answer within the time limit": (
        "Airflow's triggerer hangs or does not run. The window is still computed.",
        "Check the triggerer.",
    ),
    "unreadable Variable is ignored": (
        "A Variable of Headrace has a text that Headrace did not write.",
        "Delete the Variable in Airflow's UI.",
    ),
    "unreadable Variable is replaced": (
        "A Variable of Headrace has a text that Headrace did not write.",
        "Nothing.",
    ),
    "clocks differ": (
        (
            "The clocks of an Airflow task and of InfluxDB differ by more than 5 s. The stage "
            "uses the earlier one."
        ),
        "Synchronise both hosts with NTP.",
    ),
    "could not acknowledge the last readings": (
        (
            "The connection to the broker broke while the bridge stopped. The broker redelivers "
            "these readings, and the bridge recognises them."
        ),
        "Nothing.",
    ),
    "dependency unavailable": (
        "A dependency of the worker is unavailable: `condition`. `problem` has the reason.",
        "Restore the dependency; the worker retries and logs its recovery.",
    ),
    "foreign record skipped": (
        (
            "Another program wrote a record to a topic that Headrace reads. Logged once per topic "
            "and reason."
        ),
        "Find the writer; `topic`, `partition` and `offset` identify the record.",
    ),
    "malformed MQTT packet set aside": (
        (
            "The broker sent a packet that is not laid out as MQTT 5 requires. It becomes a dead "
            "letter with the reason `malformed_packet`. At most one line a minute."
        ),
        "Find the publisher by the payload of the dead letter, and update the broker.",
    ),
    "buffer full: leaving the broker, which keeps the session": (
        (
            "Kafka has been slow or unavailable for 15 s and the bridge's buffer is full. The "
            "broker queues the messages."
        ),
        "Restore Kafka; the bridge then reconnects.",
    ),
    "partitions lost": (
        (
            "The sink did not contact its consumer group for too long, and Kafka gave its "
            "partitions to other sinks. Uncommitted readings are written again."
        ),
        "If it repeats, check the load on the sink's host.",
    ),
    "session taken over by another client": (
        (
            "Another client connected with the client id in `bridge`. The bridge waits, and reads "
            "from Kafka what the other has stored before it connects again."
        ),
        "Stop the other client, or give each bridge its own `HEADRACE_BRIDGE_ID`.",
    ),
    "stopped before Kafka had everything; the broker will send it again": (
        (
            "The bridge's `HEADRACE_DRAIN_LIMIT` ended before Kafka had stored everything. The "
            "broker sends these readings again at the next start."
        ),
        "Nothing.",
    ),
    "simulated devices can't connect": (
        (
            "`headrace simulate` can't connect to the broker. `problem` has the reason. Logged "
            "once a minute while it lasts."
        ),
        "Correct what `problem` says, or start the broker.",
    ),
    "the broker refuses a device": (
        "A simulated device could not log in.",
        "Run `headrace provision`, then `make reload-logins`.",
    ),
    "worker failed and must be restarted": (
        (
            "The process can't continue, but a new one can. It ends after 5 s with a non-zero "
            "exit code, and the supervisor starts another. `kind` is `fatal` or `transient`."
        ),
        "Nothing. If it repeats, correct what `problem` says.",
    ),
    "worker failed unexpectedly and must be restarted": (
        "An unexpected error. The log has its traceback. The supervisor restarts it.",
        "Report the traceback.",
    ),
}


@dataclass(frozen=True, order=True)
class LogMessage:
    """A message in the code.

    Parameters
    ----------
    text
        The constant phrase.
    level
        ``warning`` or ``error``.
    fields
        Names of its fields.
    """

    text: str
    level: str
    fields: tuple[str, ...]


def log_messages() -> str:
    """Return the table of warnings and errors with meanings and actions."""
    rows = []
    for item in logged():
        meaning, action = EXPLANATIONS.get(item.text, ("", ""))
        fields = ", ".join(f"`{name}`" for name in item.fields)
        rows.append([f"`{item.text}`", item.level, fields, meaning, action])
    return table(["message", "level", "fields", "meaning", "what to do"], rows)


def logged() -> list[LogMessage]:
    """Find the warnings and errors in the package, in alphabetical order."""
    found: dict[str, LogMessage] = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        for item in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            known = found.get(item.text, item)
            fields = dict.fromkeys((*known.fields, *item.fields))
            found[item.text] = LogMessage(item.text, known.level, tuple(fields))
    return sorted(found.values(), key=lambda item: item.text.lower())


def _calls(tree: ast.Module) -> Iterator[LogMessage]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if name not in _LOGGERS or node.func.attr not in _LEVELS or not node.args:
            continue
        text = node.args[0]
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            fields = tuple(item.arg for item in node.keywords if item.arg)
            yield LogMessage(text.value, _LEVELS[node.func.attr], fields)
