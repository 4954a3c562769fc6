"""Checks the health of a server: ``healthcheck.py <url> [part of Airflow]``.

The health checks of docker-compose.yaml run it, so that images need no curl.
"""  # noqa: INP001 - a script that is copied into the images, not a package

from __future__ import annotations

import json
import sys
import urllib.request

_SECONDS = 4.0


def main(url: str, part: str | None = None) -> None:
    """Exit with code 1 and a sentence unless the server is healthy.

    Parameters
    ----------
    url
        Address that answers with 200 if the server is healthy.
    part
        Part of Airflow whose health the answer must confirm. Airflow's own check starts a new
        Airflow process, which costs ten seconds of a core.
    """
    # Docker may pass on the machine's proxy, which can't reach these servers.
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
