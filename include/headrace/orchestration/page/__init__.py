"""The page in Airflow's UI with the windows of the last day and the active alarms."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.sdk import conf

__all__ = ["PREFIX", "page_path"]

#: Path prefix of the page on Airflow's api-server.
PREFIX = "/headrace"


def page_path() -> str:
    """Return the path of the page, below the path of Airflow."""
    base = urlsplit(conf.get("api", "base_url", fallback="") or "")
    return f"{base.path.rstrip('/')}{PREFIX}/"
