"""The page *Windows* in Airflow's UI, and links to it from task instances."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from headrace.orchestration.page import PREFIX, page_path
from headrace.orchestration.page.link import WindowLink


class HeadracePagePlugin(AirflowPlugin):
    """Registers the page behind Airflow's login, and a link to it for every stage task."""

    name = "headrace_page"

    # No `url_route`: it would embed the page in a frame, which blocks links to runs.
    external_views = [  # noqa: RUF012 - Airflow says how
        {
            "name": "Windows",
            "href": page_path(),
            "icon": f"{page_path()}icon.svg",
            "destination": "nav",
            "nav_top_level": True,
        }
    ]
    operator_extra_links = [WindowLink()]  # noqa: RUF012

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the page, created only in the api-server.

        Airflow loads plugins in all its processes. The page would cost 15 MB in each of them
        and in each task.
        """
        from headrace.orchestration.page.app import page_app  # noqa: PLC0415

        return [{"app": page_app(), "url_prefix": PREFIX, "name": "headrace"}]
