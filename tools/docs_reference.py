"""Generates reference tables: settings, commands, metrics, reasons, errors, retries."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

import typer
from prometheus_client import Metric
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperOption

import headrace.cli
from headrace.cli.app import app
from headrace.errors import PermanentError
from headrace.ingest.metrics import BridgeMetrics, SinkMetrics
from headrace.models.deadletter import Reason
from headrace.models.window import rfc3339
from headrace.orchestration.policies import STAGES, retry_cells, stage_policy
from headrace.profile import load_profile
from headrace.settings import ENV_PREFIX, GROUPS, SECRETS, Settings
from headrace.storage.kafka_acls import needed_acls
from tools.docs_tables import duration_text, table

__all__ = [
    "cli",
    "dead_letter_reasons",
    "make_targets",
    "metrics",
    "permanent_errors",
    "retry_policies",
    "settings",
]

_CHECKOUT = Path(__file__).resolve().parents[1]
_MIB = 1 << 20


def settings() -> str:
    """Return the tables of settings, one per group."""
    parts = []
    for group in GROUPS:
        title = (group.__doc__ or "").rstrip(".")
        rows = [
            [
                f"`{ENV_PREFIX}{name.upper()}`",
                _default(field),
                field.description or "",
                "secret" if name in SECRETS else "",
            ]
            for name, field in group.model_fields.items()
        ]
        parts += [f"## {title}", table(["setting", "default", "meaning", ""], rows)]
    return "\n\n".join(parts)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == () or field.default_factory:
        return ""
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(_CHECKOUT)
    if isinstance(value, timedelta):
        value = duration_text(value)
    if isinstance(value, datetime):
        value = rfc3339(value)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int) and value >= _MIB and not value % _MIB:
        return f"`{value}` ({value // _MIB} MiB)"
    return f"`{value}`"


def cli() -> str:
    """Return the reference of the ``headrace`` commands with arguments and options."""
    for module in pkgutil.iter_modules(headrace.cli.__path__, "headrace.cli."):
        importlib.import_module(module.name)
    parts = []
    for info in sorted(app.registered_commands, key=_command_name):
        name = _command_name(info)
        alone = typer.Typer(add_completion=False)
        alone.registered_commands.append(info)
        command = typer.main.get_command(alone)
        rows = list(_parameters(command.params))
        arguments = "".join(
            f" <{item.name}>{'...' if item.nargs != 1 else ''}"
            for item in command.params
            if isinstance(item, TyperArgument)
        )
        parts += [f"### headrace {name}", f"```\nheadrace {name}{arguments}\n```"]
        parts.append(inspect.cleandoc(command.help or ""))
        if rows:
            parts.append(table(["argument or option", "default", "meaning"], rows))
    return "\n\n".join(parts)


def _command_name(info: typer.models.CommandInfo) -> str:
    return str(info.name or getattr(info.callback, "__name__", ""))


def _parameters(params: Iterable[object]) -> Iterator[list[str]]:
    for item in params:
        if isinstance(item, TyperArgument):
            yield [f"`{item.name}`", "required", item.help or ""]
        elif isinstance(item, TyperOption):
            names = ", ".join(f"`{name}`" for name in item.opts)
            empty = item.default is None or item.default is False or item.is_flag
            default = "required" if item.required else "" if empty else f"`{item.default}`"
            yield [names, default, item.help or ""]


def make_targets() -> str:
    """Return the table of make targets with the texts of ``make help``."""
    text = (_CHECKOUT / "Makefile").read_text(encoding="utf-8")
    found = re.findall(r"(?m)^([a-z-]+):[^#\n]*## (.+)$", text)
    return table(["target", "effect"], [[f"`make {name}`", what] for name, what in found])


def dead_letter_reasons() -> str:
    """Return the table of dead-letter reasons."""
    return table(["`reason`", "meaning"], [[f"`{item.value}`", item.meaning] for item in Reason])


def metrics() -> str:
    """Return the table of the workers' metrics, without those of the Prometheus client."""
    rows = []
    for registry in (BridgeMetrics().registry, SinkMetrics().registry):
        rows += [
            [f"`{_exposed(metric)}`", metric.type, metric.documentation]
            for metric in registry.collect()
            if metric.name.startswith("headrace_")
        ]
    return table(["metric", "type", "meaning"], rows)


def _exposed(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def retry_policies() -> str:
    """Return the table of retry policies."""
    rows = []
    for stage in STAGES:
        policy = stage_policy(stage)
        never = ", ".join(f"`{error.__name__}`" for error in policy.never)
        rows.append([*retry_cells(stage, policy.retries), never, policy.why])
    header = ["stage", "tries", "delay", "backoff", "limit of one try", "never retried", "why"]
    return table(header, rows)


def permanent_errors() -> str:
    """Return the table of errors that are never retried."""
    return table(
        ["error", "meaning"],
        [
            [f"`{error.__name__}`", " ".join((error.__doc__ or "").split("\n\n")[0].split())]
            for error in PermanentError.__subclasses__()
        ],
    )


def kafka_acls() -> str:
    """Every right of Headrace's Kafka user, with the names of the shipped profile."""
    fields = Settings.model_fields
    profile = load_profile(fields["profile"].default)
    acls = needed_acls(profile, fields["bridge_id"].default)
    rows = [[acl.operation, acl.resource, f"`{acl.name}`", acl.purpose] for acl in acls]
    return table(["operation", "resource", "name", "who needs it"], rows)
