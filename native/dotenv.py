"""Writes ``.env``: the settings of an installation, with new secrets.

`make env` runs this module alone, so that users of Docker need not install anything: it
imports only the standard library and works with Python 3.9.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import sys
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["ENV_FILE", "begin_anew", "main", "write_env"]

ENV_FILE = Path(".env")


def write_env(path: Path = ENV_FILE) -> bool:
    """Write the file if there is none.

    Returns
    -------
    bool
        Whether it was written.

    Raises
    ------
    SystemExit
        If the name of the folder can't be written to the file.
    """
    if path.exists():
        return False
    content = _TEMPLATE.format(
        installed_at=_now(),
        state_dir=_quoted(_state_dir(path.resolve().parent)),
        mqtt_password=_secret(),
        influx_password=_secret(),
        influx_token=_secret(48),
        airflow_password=_secret(12),
        airflow_jwt=_secret(64),
        airflow_fernet=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        postgres_password=_secret(),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    return True


def begin_anew(path: Path) -> None:
    """Set the installation date to now, after the data were deleted."""
    text = re.sub(r"(?m)^(HEADRACE_INSTALLED_AT=).*$", rf"\g<1>{_now()}", path.read_text())
    path.write_text(text)


def _now() -> str:
    now = datetime.now(timezone.utc)  # noqa: UP017 - Python 3.9 has no datetime.UTC
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _secret(size: int = 24) -> str:
    return secrets.token_urlsafe(size)


def _state_dir(checkout: Path) -> Path:
    """Return the folder of the stack's data.

    If root starts them, servers run as another user, who can't enter root's folders.
    """
    if os.geteuid() != 0:
        return checkout / ".state"
    digest = hashlib.sha256(str(checkout).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", checkout.name)
    return Path("/var/lib/headrace") / f"{name}-{digest}"


def _quoted(path: Path) -> str:
    """Quote a path so that every reader of ``.env`` gets it unchanged."""
    text = str(path)
    if re.fullmatch(r"[A-Za-z0-9./_-]+", text):
        return text
    if "'" in text or "\n" in text:
        sys.exit(
            f"headrace: the folder {text!r} has a quote or a line break in its name: choose "
            "another folder"
        )
    return f"'{text}'"


_TEMPLATE = """\
# Settings of this installation, written by `make env`. Both ways of running read it.
# docs/reference/settings.md lists every setting; those not given here have their defaults.

# What Docker Compose starts besides the workers and Airflow; `make up` does not read it. For a
# server of your own, remove its name and `fleet`, and set its address (docs/docker.md).
COMPOSE_PROFILES=fleet,mosquitto,kafka,influxdb,postgres,mailbox

# Start of the installation: no earlier window is expected.
HEADRACE_INSTALLED_AT={installed_at}

# Data, logs and tokens of the local stack.
HEADRACE_STATE_DIR={state_dir}

# InfluxDB. `headrace provision` and you use the password and the operator token; the workers
# and Airflow use tokens of their own with fewer permissions.
HEADRACE_INFLUX_ORG=headrace
HEADRACE_INFLUX_ADMIN_USER=admin
HEADRACE_INFLUX_ADMIN_PASSWORD={influx_password}
HEADRACE_INFLUX_ADMIN_TOKEN={influx_token}

# Airflow's UI, and the secrets of its processes.
HEADRACE_AIRFLOW_USER=admin
HEADRACE_AIRFLOW_PASSWORD={airflow_password}
HEADRACE_AIRFLOW_JWT_SECRET={airflow_jwt}
HEADRACE_AIRFLOW_FERNET_KEY={airflow_fernet}
HEADRACE_POSTGRES_PASSWORD={postgres_password}

# Recipients of the alert e-mails. The local mailbox collects all of them.
HEADRACE_ALERT_TO=operators@headrace.local

# Access to the local broker: `anonymous`, or `password` for one login per device.
HEADRACE_MQTT_LOGIN=anonymous
HEADRACE_MQTT_USERNAME=headrace-bridge
HEADRACE_MQTT_PASSWORD={mqtt_password}

# The simulated fleet; 0 starts none.
HEADRACE_FLEET_SIZE=50

# Ports, all on loopback.
HEADRACE_MQTT_PORT=1883
HEADRACE_KAFKA_PORT=9092
HEADRACE_INFLUX_PORT=8086
HEADRACE_AIRFLOW_PORT=8080
HEADRACE_MAILBOX_PORT=1080
HEADRACE_SMTP_PORT=1025
HEADRACE_POSTGRES_PORT=5433
HEADRACE_BRIDGE_METRICS_PORT=9101
HEADRACE_SINK_METRICS_PORT=9102
"""


def main() -> None:
    """Write the file if there is none; print one sentence."""
    if write_env():
        print(f"wrote {ENV_FILE}: change ports and addresses there before the first start")
    elif "COMPOSE_PROFILES=" in ENV_FILE.read_text(encoding="utf-8"):
        print(f"{ENV_FILE} exists already")
    else:
        (profiles,) = re.findall(r"(?m)^COMPOSE_PROFILES=.*$", _TEMPLATE)
        print(f"{ENV_FILE} exists already. Docker Compose starts no servers without: {profiles}")


if __name__ == "__main__":
    main()
