"""The page in Airflow's UI: the windows of the last day, and the standing alarms."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.sdk import conf

__all__ = ["PREFIX", "page_path"]

#: Path prefix of the page on Airflow's api-server.
PREFIX = "/headrace"


def page_path() -> str:
    """Path of the page, below the path of Airflow itself."""
    base = urlsplit(conf.get("api", "base_url", fallback="") or "")
    return f"{base.path.rstrip('/')}{PREFIX}/"
