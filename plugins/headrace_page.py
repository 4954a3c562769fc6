"""The page of windows in Airflow's UI, and the links that lead to it from task instances."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from headrace.orchestration.page import PREFIX, page_path
from headrace.orchestration.page.link import WindowLink


class HeadracePagePlugin(AirflowPlugin):
    """Registers the page behind Airflow's login, and a link to it at every stage's tasks."""

    name = "headrace_page"

    # Without a `url_route`, which would put the page into a frame that forbids its links to
    # lead out of it, to the runs.
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
        """The page, made only where it is asked for.

        Airflow loads plugins in all its processes, and only the api-server serves pages:
        15 MB for each of the others, and each task that they fork.
        """
        from headrace.orchestration.page.app import page_app  # noqa: PLC0415

        return [{"app": page_app(), "url_prefix": PREFIX, "name": "headrace"}]
