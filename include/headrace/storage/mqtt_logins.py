"""Logins and access rules of the bundled MQTT broker, in mosquitto's file formats.

The login of a device is its id. The rules restrict each login to the topics of that device, so
that no device can publish for another. mosquitto demands that its files are its own and that
nobody else reads them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from headrace.checks.values import is_printable
from headrace.errors import ConfigurationError
from headrace.profile import Profile
from headrace.settings import MqttLogin, Settings

__all__ = ["LoginFile", "access_rules", "fleet_passwords", "new_logins", "provision_logins"]

#: mosquitto's default number of rounds; it accepts any number in the file.
_ROUNDS = 101
_SALT_BYTES = 12
_SIMULATED = "generator{}"


class LoginFile:
    """A password file of mosquitto: one line per user, with a salted hash.

    Parameters
    ----------
    path
        The file. mosquitto reads it when it starts, and again after SIGHUP.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, str] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                user, _, hashed = line.partition(":")
                self._lines[user] = hashed

    @property
    def users(self) -> set[str]:
        """Users with a login."""
        return set(self._lines)

    def set(self, user: str, password: str) -> None:
        """Create a login for a user, or replace its password.

        Raises
        ------
        ConfigurationError
            If the name can't be a login.
        """
        if not user or not is_printable(user) or any(mark in user for mark in ":+#/"):
            msg = f"{user!r} can't be a login: write printable characters other than : + # and /"
            raise ConfigurationError(msg)
        self._lines[user] = _hashed(password)

    def remove(self, user: str) -> None:
        """Remove the login of a user.

        Raises
        ------
        ConfigurationError
            If the user has none.
        """
        if self._lines.pop(user, None) is None:
            msg = f"{user} has no login in {self._path}"
            raise ConfigurationError(msg)

    def save(self) -> None:
        """Write the file atomically."""
        text = "".join(f"{user}:{hashed}\n" for user, hashed in sorted(self._lines.items()))
        _write(self._path, text)


def access_rules(profile: Profile, bridges: Iterable[str]) -> str:
    """Return mosquitto's access rules: a login writes its own topics, a bridge reads all."""
    topics = profile.mqtt
    lines = [
        "# Written by `headrace provision`.",
        # %u is the login.
        f"pattern write {topics.readings_of('%u')}",
        f"pattern write {topics.status_of('%u')}",
    ]
    for bridge in sorted(bridges):
        lines += [
            f"user {bridge}",
            f"topic read {topics.readings_filter}",
            f"topic read {topics.status_filter}",
        ]
    return "\n".join((*lines, ""))


def provision_logins(settings: Settings, profile: Profile) -> dict[str, str]:
    """Create the rules, and the logins of the bridge and of the simulated fleet.

    Returns
    -------
    dict
        Performed changes by name; empty if the broker requires no login.

    Raises
    ------
    ConfigurationError
        If the bridge's login is not set.
    """
    if settings.mqtt_login is MqttLogin.ANONYMOUS:
        return {}
    if settings.mqtt_username is None or settings.mqtt_password is None:
        msg = (
            "HEADRACE_MQTT_LOGIN is password, so the bridge needs HEADRACE_MQTT_USERNAME and "
            "HEADRACE_MQTT_PASSWORD"
        )
        raise ConfigurationError(msg)
    folder = settings.logins_dir
    logins = LoginFile(folder / "passwords")
    # Further bridges have their own logins, because a login is also the name of a session.
    bridges = {settings.mqtt_username, *_bridges_in(folder / "rules") & logins.users}
    _write(folder / "rules", access_rules(profile, bridges))
    # The current settings apply.
    logins.set(settings.mqtt_username, settings.mqtt_password.get_secret_value())
    fleet = fleet_passwords(settings)
    for number in range(1, settings.fleet_size + 1):
        device = _SIMULATED.format(number)
        if device not in fleet:
            fleet[device] = secrets.token_urlsafe(12)
        if device not in logins.users:
            logins.set(device, fleet[device])
    _write(folder / "fleet.json", json.dumps(fleet))
    logins.save()
    return {"MQTT logins": f"{len(logins.users)} in {folder}"}


def _bridges_in(rules: Path) -> set[str]:
    """Return the users with the right to read."""
    if not rules.exists():
        return set()
    lines = rules.read_text(encoding="utf-8").splitlines()
    return {line.removeprefix("user ") for line in lines if line.startswith("user ")}


def fleet_passwords(settings: Settings) -> dict[str, str]:
    """Return the passwords of the simulated devices by id; empty if they need none."""
    path = settings.logins_dir / "fleet.json"
    if settings.mqtt_login is MqttLogin.ANONYMOUS or not path.exists():
        return {}
    content: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return content


def new_logins(file: LoginFile, users: Iterable[str]) -> Mapping[str, str]:
    """Create logins with new passwords for users; return the passwords."""
    made = {user: secrets.token_urlsafe(12) for user in users}
    for user, password in made.items():
        file.set(user, password)
    return made


def _hashed(password: str) -> str:
    salt = os.urandom(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"$7${_ROUNDS}${encoded[0]}${encoded[1]}"


def _write(path: Path, text: str) -> None:
    """Write a file that only the owner of its folder can read, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(partial, owner.st_uid, owner.st_gid)
    partial.replace(path)
