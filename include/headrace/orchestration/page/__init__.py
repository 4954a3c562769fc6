"""The page of windows in Airflow's UI: the last day's windows, and the alarms that stand."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.sdk import conf

__all__ = ["PREFIX", "page_path"]

#: Where Airflow's api-server serves the page.
PREFIX = "/headrace"


def page_path() -> str:
    """Path of the page, below whatever path Airflow itself is served at."""
    base = urlsplit(conf.get("api", "base_url", fallback="") or "")
    return f"{base.path.rstrip('/')}{PREFIX}/"
