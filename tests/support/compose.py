"""Parses ``docker-compose.yaml`` and fills in the values of an ``.env``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml
from dotenv import dotenv_values

from tests.support.installation import PROJECT

__all__ = ["AIRFLOW", "ONE_SHOTS", "TOOLS", "VARIABLE", "WORKERS", "Compose"]

#: Services that exit after their work; `make up` runs the same commands.
ONE_SHOTS = {"provision", "airflow-init"}
#: The `headrace` command for people, not part of the running stack.
TOOLS = {"cli"}
#: The services that run the image with Airflow.
AIRFLOW = {
    "airflow-init",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
}
#: The services that run the image without.
WORKERS = {"provision", "bridge", "sink", "simulate", "cli"}
#: A variable with a default, with a replacement, or with neither. Both can contain a variable.
VARIABLE = re.compile(r"\$\{(\w+)(?::([-+])((?:\$\{[^}]*\}|[^}])*))?\}")


class Compose:
    """``docker-compose.yaml``, with the values of some ``.env`` in it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        text = (PROJECT / "docker-compose.yaml").read_text()
        self.text = re.sub(r"(?m)^\s*#.*$", "", text)
        self._env = {"COMPOSE_PROJECT_NAME": "headrace", **env}
        content = yaml.safe_load(self.text)
        self.raw: dict[str, Any] = content
        self.services: dict[str, dict[str, Any]] = self._filled(content["services"])
        self.configs: dict[str, dict[str, Any]] = self._filled(content["configs"])
        self.secrets: dict[str, dict[str, Any]] = self._filled(content["secrets"])
        self.volumes: set[str] = set(content["volumes"])

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a container."""
        own = self.services[service]
        found: dict[str, str] = {}
        for path in self.env_files(service):
            found.update({key: value or "" for key, value in dotenv_values(PROJECT / path).items()})
        for key, value in own.get("environment", {}).items():
            given = self._env.get(key) if value is None else value
            # Compose takes a name without a value out of what the files give.
            found.pop(key, None)
            if given is not None:
                found[key] = given
        return found

    def env_files(self, service: str) -> list[str]:
        """Return the paths of the files with a service's environment, as Compose cleans them."""
        return [os.path.normpath(path) for path in self.services[service].get("env_file", [])]

    def mounts(self, service: str) -> dict[str, tuple[str, bool]]:
        """Return the mounts by target: source, and whether it is read-only."""
        mounts = {}
        for mount in self.services[service].get("volumes", []):
            source, target, *options = mount.split(":")
            mounts[target] = (source, options == ["ro"])
        return mounts

    def ports(self) -> dict[str, set[tuple[str, int]]]:
        """Return the published address and port by service."""
        published = {}
        for name, service in self.services.items():
            ports = [port.rpartition(":")[0] for port in service.get("ports", [])]
            if ports:
                split = [port.rpartition(":") for port in ports]
                published[name] = {(address, int(port)) for address, _, port in split}
        return published

    def defaults(self) -> dict[str, set[str]]:
        """Return the file's defaults by variable."""
        defaults: dict[str, set[str]] = {}
        for name, operator, text in VARIABLE.findall(self.text):
            if operator == "-":
                defaults.setdefault(name, set()).add(text)
        return defaults

    def variables(self) -> set[str]:
        """Return all variables of the file and all settings that it sets."""
        names = {match[0] for match in VARIABLE.findall(self.text)}
        for service in self.raw["services"].values():
            names |= {name for name in service.get("environment", {}) if "HEADRACE" in name}
        return names

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, str):
            return VARIABLE.sub(self._value, value).replace("$$", "$")
        return value

    def _value(self, match: re.Match[str]) -> str:
        name, operator, text = match.groups()
        found = self._env.get(name)
        if operator == "+":
            return VARIABLE.sub(self._value, str(text)) if found else ""
        if not found:
            assert operator == "-", f"{name} is not in .env, and has no default"
            return VARIABLE.sub(self._value, str(text))
        return found
