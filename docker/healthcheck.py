"""Check the health of a server: ``healthcheck.py <url> [part of Airflow]``.

What the health checks of docker-compose.yaml run, in images that need not have curl.
"""  # noqa: INP001 - a script that is copied into the images, not a package

from __future__ import annotations

import json
import sys
import urllib.request

_SECONDS = 4.0


def main(url: str, part: str | None = None) -> None:
    """End with exit code 1 and a sentence unless all is well.

    Parameters
    ----------
    url
        What answers with 200 when all is well.
    part
        Which part of Airflow has to be healthy by that object. Airflow's own check asks the
        database through a new process of Airflow's, which costs ten seconds of a core.
    """
    # The proxy of the machine, which Docker may hand over, does not know these servers.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as response:
            report = json.load(response) if part else {}
    except (OSError, ValueError) as exc:
        sys.exit(f"{url}: {exc}")
    if part is not None:
        state = report.get(part, {}).get("status")
        if state != "healthy":
            sys.exit(f"{part}: {state or 'does not run'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
