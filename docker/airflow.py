#!/usr/bin/env python
"""``airflow`` in the image: Airflow with the configuration from Headrace's settings.

It is first on PATH, so that containers, `docker compose run` and `docker compose exec` all use
it. Variables that are already set have priority.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.orchestration.environment import derived_environment, write_login
from headrace.settings import load_settings

#: The service of docker-compose.yaml, inside the network.
_API_SERVER = "http://airflow-api-server:8080"


def main() -> None:
    """Run the real ``airflow``, or exit with a sentence about a wrong setting."""
    own_folder = str(Path(__file__).parent)
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if folder != own_folder)
    program = shutil.which("airflow", path=path)
    if program is None:
        sys.exit(f"there is no airflow in {path}")
    try:
        settings = load_settings()
        derived = derived_environment(settings, _API_SERVER)
        # Only the api-server gets this password.
        if settings.airflow_password is not None:
            passwords = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
            write_login(settings, Path(passwords))
    except ConfigurationError as exc:
        sys.exit(f"headrace: {exc}")
    os.execve(program, ["airflow", *sys.argv[1:]], {**derived, **os.environ})  # noqa: S606


if __name__ == "__main__":
    main()
