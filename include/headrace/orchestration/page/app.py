"""The page as an application that Airflow's api-server mounts.

Airflow does not authenticate requests to a mounted application, so every response depends on
`_may_read`. The page receives device ids only as JSON and shows them as text. Its
Content-Security-Policy allows only its own scripts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from pydantic import AwareDatetime

from headrace.errors import HeadraceError, TransientError
from headrace.orchestration.connections import open_pipeline, task_settings
from headrace.orchestration.factory import windows_dag_id
from headrace.orchestration.page.runs import live_runs, run_link
from headrace.overview.timeline import DAY, TimelineWindow, WindowState, read_timeline
from headrace.stages.alarm_record import read_standing

__all__ = ["page_app"]

_FILES = Path(__file__).parent / "files"
#: Time limit of the queries for the page.
_QUERY_LIMIT = timedelta(seconds=15)
#: Maximum number of listed alarms; the page also shows the total.
_LISTED_ALARMS = 1000

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page_app() -> FastAPI:
    """Create the application."""
    app = FastAPI(
        title="Headrace",
        # FastAPI's documentation pages would not require a login.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(_may_read)],
    )
    app.middleware("http")(_add_headers)
    app.add_exception_handler(HeadraceError, _explain)
    app.add_api_route("/", _file("page.html"), response_class=FileResponse)
    for name in ("page.css", "page.js", "icon.svg"):
        app.add_api_route(f"/{name}", _file(name), response_class=FileResponse)
    app.add_api_route("/windows", _windows)
    app.add_api_route("/alarms", _alarms)
    return app


def _may_read(request: Request, user: GetUserDep) -> None:
    """Admit users who may see runs of the live DAG: 401 without a login, 403 otherwise."""
    _, profile = task_settings()
    requires_access_dag("GET", DagAccessEntity.RUN, windows_dag_id(profile))(request, user)


async def _add_headers(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await answer(request)
    response.headers.update(_HEADERS)
    return response


def _explain(request: Request, exc: Exception) -> Response:
    """Return the error as a sentence for the page, instead of a traceback."""
    del request
    content = {"detail": "; ".join([str(exc), *getattr(exc, "__notes__", ())])}
    return _json(content, 503 if isinstance(exc, TransientError) else 500)


def _file(name: str) -> Callable[[], FileResponse]:
    return lambda: FileResponse(_FILES / name)


# The clients block, so these are plain functions, which FastAPI runs in threads.


def _windows(session: SessionDep, until: AwareDatetime | None = None) -> Response:
    """The windows of the 24 hours before a time, or before now."""
    settings, profile = task_settings()
    now = datetime.now(UTC)
    end = min(until.astimezone(UTC), now) if until else now
    with open_pipeline(_QUERY_LIMIT) as pipeline:
        timeline = read_timeline(end, now, settings.installed_at, pipeline)
    dag_id = windows_dag_id(profile)
    runs = live_runs(session, dag_id, end - DAY, end)
    counts = dict.fromkeys(WindowState, 0)
    for window in timeline:
        counts[window.state] += 1
    return _json(
        {
            "profile": profile.name,
            "now": now,
            "until": end,
            "window_seconds": int(profile.window.total_seconds()),
            "counts": counts,
            "windows": [_window_content(window, runs) for window in timeline],
        }
    )


def _window_content(window: TimelineWindow, runs: dict[datetime, str]) -> dict[str, Any]:
    # An uncomputed window links to its live run.
    marker = window.marker
    run = (marker.run if marker else "") or runs.get(window.start, "")
    return {
        "start": window.start,
        "state": window.state,
        "rows": marker and marker.rows,
        "readings": marker and marker.readings,
        "revision": marker and marker.revision,
        "failed": window.failed,
        "run": run,
        "link": run_link(run) if run else None,
    }


def _alarms() -> Response:
    """Return the active alarms, newest first."""
    now = datetime.now(UTC)
    with open_pipeline(_QUERY_LIMIT) as pipeline:
        standing = read_standing(now, pipeline)
        device_of = pipeline.profile.id_field
    return _json(
        {
            "id_field": device_of,
            "now": now,
            "total": len(standing),
            "alarms": [
                {
                    "device": alarm.device,
                    "rule": alarm.rule,
                    "level": alarm.level,
                    "since": alarm.since,
                }
                for alarm in standing[:_LISTED_ALARMS]
            ],
        }
    )


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
